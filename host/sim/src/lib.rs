//! lockgate-sim
