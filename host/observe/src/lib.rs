//! lockgate-observe
