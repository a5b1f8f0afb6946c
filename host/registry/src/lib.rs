//! lockgate-registry
