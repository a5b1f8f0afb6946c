//! lockgate-runtime
