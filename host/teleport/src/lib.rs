//! lockgate-teleport
