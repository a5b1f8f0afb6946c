//! The interface of a component that the engine needs: one call at a time, without isolation and
//! without retry.

use lockgate_model::contract::{
    BatchContext, Called, Encoded, Mapped, SinkSetup, StageKind, StageSetup, Verdict,
};
use lockgate_model::request::{Classification, Response, Sent};
use lockgate_model::{DocumentView, EventView, StateOverlay};

/// A configured filter or mapper.
///
/// Each method makes one call of the component. `fresh`: use an instance that has made no call. On
/// success the call's writes are in `state`; on failure `state` is thrown away.
pub trait Stage {
    /// Its place in the pipeline, such as `stage 1 (builtin:redact)`: for messages and dead
    /// letters.
    fn label(&self) -> &str;
    fn kind(&self) -> StageKind;
    fn setup(&self) -> &StageSetup;

    /// One verdict for each event. Called for [`StageKind::Filter`] only.
    fn filter(
        &self,
        batch: &BatchContext,
        events: &[EventView<'_>],
        state: &mut StateOverlay,
        fresh: bool,
    ) -> Called<Vec<Verdict>>;

    /// One outcome for each event. Called for [`StageKind::Mapper`] only.
    fn transform(
        &self,
        batch: &BatchContext,
        events: &[EventView<'_>],
        state: &mut StateOverlay,
        fresh: bool,
    ) -> Called<Vec<Mapped>>;
}

/// A configured sink. As [`Stage`], each method makes one call.
pub trait Sink {
    fn label(&self) -> &str;
    fn setup(&self) -> &SinkSetup;

    /// Requests that carry the documents, checked against the contract and the endpoint's rules.
    fn encode(
        &self,
        batch: &BatchContext,
        documents: &[DocumentView<'_>],
        fresh: bool,
    ) -> Called<Encoded>;

    /// Judges a response: the outcome of the documents that the request carried.
    fn classify(
        &self,
        batch: &BatchContext,
        sent: &Sent,
        response: &Response,
    ) -> Called<Classification>;
}
