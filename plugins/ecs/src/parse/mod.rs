//! Parsers of foreign text. Each answers `None` for what it cannot read.

pub mod address;
pub mod base64;
pub mod size;
pub mod text_form;
pub mod time;
pub mod uri;
