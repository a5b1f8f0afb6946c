//! lockgate-store
