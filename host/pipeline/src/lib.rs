//! lockgate-pipeline
