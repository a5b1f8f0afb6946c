//! Parsers of foreign text. They return `None` for invalid text.

pub mod address;
pub mod base64;
pub mod size;
pub mod text_form;
pub mod time;
pub mod uri;
