//! lockgate-egress
