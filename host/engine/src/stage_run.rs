//! Filters and mappers over a batch, one call of a component at a time.

use std::sync::Arc;
use std::time::Duration;

use lockgate_model::contract::{
    Access, CallError, Called, Mapped, MappedDocument, Shortage, StageKind, TypeLists, Verdict,
};
use lockgate_model::{EventView, Fate, StateOverlay};

use crate::documents::Documents;
use crate::fates::Fates;
use crate::index::DocumentIndex;
use crate::isolation::{Attempt, Isolation, Piece};
use crate::limits::{
    BYTES_OF_BATCH, BYTES_OF_BATCH_FACTOR, FAN_OUT_OF_BATCH_MAX, FAN_OUT_OF_EVENT_MAX,
};
use crate::plugin::Stage;

/// A batch on its way through the stages. [`step`](Self::step) makes one call; between two steps it
/// can move to another thread, and other pipelines have their turn.
#[derive(Debug)]
pub struct StageRun {
    documents: Documents,
    fates: Fates,
    stage: usize,
    /// The search of the stage that works now, over these documents.
    search: Option<Search>,
    /// One for each stage.
    states: Vec<StateOverlay>,
    cpu: Duration,
    cpu_budget: Duration,
    /// Bytes that the stage that works now has made, and the most that it may.
    made: usize,
    made_max: usize,
    /// The sink's label and what it wants, until that has been applied.
    sink: Option<(Arc<str>, Arc<TypeLists>)>,
    /// The latest call, if it failed.
    failed: Option<FailedCall>,
}

#[derive(Debug)]
struct Search {
    documents: Vec<DocumentIndex>,
    isolation: SearchOf,
}

#[derive(Debug)]
enum SearchOf {
    Filter(Isolation<Vec<Verdict>>),
    Mapper(Isolation<Vec<Mapped>>),
}

impl SearchOf {
    fn current(&mut self) -> Option<Attempt> {
        match self {
            SearchOf::Filter(isolation) => isolation.current(),
            SearchOf::Mapper(isolation) => isolation.current(),
        }
    }
}

/// Whether there is more to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Call [`StageRun::step`] again.
    More,
    Done,
    /// Nothing of the batch is final: it passes again later.
    Failed(BatchError),
}

/// Why a batch cannot go on.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchError {
    /// A component asked for a retry or a hold, failed on everything, or the host could not run it.
    Component { label: String, error: CallError },
    /// The components used more CPU time for this batch than one may.
    CpuBudget { label: String, budget: Duration },
    /// A mapper made more of a batch of this size than the host keeps, such as `20000 documents`.
    TooMuch { label: String, made: String },
}

/// A call that failed, although the work goes on: with fewer events, or once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCall {
    pub label: String,
    /// As part of a sentence, such as `it took more than 1000 ms of CPU time`.
    pub reason: String,
    /// The component is not at fault: the next step makes the same call, and should wait until
    /// there is room for it.
    pub shortage: Option<Shortage>,
}

impl FailedCall {
    /// `None` if the call did not fail, or the work ends with it.
    pub(crate) fn of<R>(label: &str, result: &Result<R, CallError>) -> Option<FailedCall> {
        let error = result.as_ref().err()?;
        let shortage = match error {
            CallError::NoRoom(shortage) => Some(shortage.clone()),
            error if error.may_be_one_event() => None,
            _ => return None,
        };
        Some(FailedCall {
            label: label.to_owned(),
            reason: error.to_string(),
            shortage,
        })
    }
}

/// A call whose result the search has.
struct Answered {
    /// CPU time that counts.
    cpu: Duration,
    failed: Option<FailedCall>,
    succeeded: bool,
    /// An error ends the search.
    result: Result<(), CallError>,
}

impl Answered {
    fn of<R>(called: Called<R>, label: &str, isolation: &mut Isolation<R>) -> Answered {
        let Called { result, cpu } = called;
        // A call that is made again does not count.
        let counts = !result.as_ref().is_err_and(CallError::is_made_again);
        Answered {
            cpu: if counts { cpu } else { Duration::ZERO },
            failed: FailedCall::of(label, &result),
            succeeded: result.is_ok(),
            result: isolation.answer(result),
        }
    }
}

/// The result of the stages for a batch.
#[derive(Debug)]
pub struct StageOutput {
    pub documents: Documents,
    pub fates: Fates,
    pub states: Vec<StateOverlay>,
}

impl StageRun {
    /// `states`: one for each stage. `cpu_budget`: CPU time of all calls for the batch. `sink`: its
    /// label and the types it wants, applied after the last stage.
    pub fn new(
        documents: Documents,
        states: Vec<StateOverlay>,
        cpu_budget: Duration,
        sink: Option<(Arc<str>, Arc<TypeLists>)>,
    ) -> StageRun {
        let mut fates = Fates::new(documents.entries());
        for index in 0..documents.len() {
            let document = DocumentIndex::new(index);
            let (cause, reason) = match documents.raw(documents.entry(document)) {
                None => continue,
                // A letter that was written off has been sent back.
                Some([]) => (
                    "store",
                    "its event is not kept: its block in the store was damaged, and was given up",
                ),
                Some(_) => ("unreadable", "the event could not be turned into JSON"),
            };
            fates.settle(&documents, document, cause, Fate::Dead(reason.to_owned()));
        }
        let bytes = |index| documents.payload(DocumentIndex::new(index)).len();
        let bytes: usize = (0..documents.len()).map(bytes).sum();
        StageRun {
            made: 0,
            made_max: (bytes * BYTES_OF_BATCH_FACTOR).max(BYTES_OF_BATCH),
            documents,
            fates,
            stage: 0,
            search: None,
            states,
            cpu: Duration::ZERO,
            cpu_budget,
            sink,
            failed: None,
        }
    }

    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The result of the stages, once a step was [`Step::Done`].
    pub fn into_output(self) -> StageOutput {
        StageOutput {
            documents: self.documents,
            fates: self.fates,
            states: self.states,
        }
    }

    /// Makes at most one call of a component.
    pub fn step<S: Stage>(&mut self, stages: &[S]) -> Step {
        let more = self.advance(stages).and_then(|more| {
            if !more {
                return Ok(false);
            }
            self.call(&stages[self.stage])?;
            self.advance(stages)
        });
        match more {
            Ok(true) => Step::More,
            Ok(false) => Step::Done,
            Err(error) => Step::Failed(error),
        }
    }

    /// The label of the stage that the next step calls.
    pub fn next_label<'a, S: Stage>(&self, stages: &'a [S]) -> Option<&'a str> {
        let mut left = stages.iter().skip(self.stage);
        left.find(|stage| !is_without_calls(*stage)).map(S::label)
    }

    /// The call of the latest step, if it failed.
    pub fn take_failed_call(&mut self) -> Option<FailedCall> {
        self.failed.take()
    }

    /// Does the host's part up to the next call. False if there is none.
    fn advance<S: Stage>(&mut self, stages: &[S]) -> Result<bool, BatchError> {
        while let Some(stage) = stages.get(self.stage) {
            if let Some(mut search) = self.search.take().or_else(|| self.begin(stage)) {
                if search.isolation.current().is_some() {
                    self.search = Some(search);
                    return Ok(true);
                }
                self.apply_results(stage, search)?;
            }
            self.stage += 1;
        }
        if let Some((label, types)) = self.sink.take() {
            self.apply_types(&types, &label);
        }
        Ok(false)
    }

    /// The host's part of a stage; the search if the component has a part too.
    fn begin<S: Stage>(&mut self, stage: &S) -> Option<Search> {
        let setup = stage.setup();
        self.apply_types(&setup.types, stage.label());
        if is_without_calls(stage) {
            return None;
        }
        let documents = self.fates.open(&self.documents);
        if documents.is_empty() {
            return None;
        }
        self.made = 0;
        let isolation = match stage.kind() {
            StageKind::Filter => SearchOf::Filter(Isolation::new(documents.len())),
            StageKind::Mapper => SearchOf::Mapper(Isolation::new(documents.len())),
        };
        Some(Search {
            documents,
            isolation,
        })
    }

    /// Type lists are the host's work: no call, no copy.
    fn apply_types(&mut self, types: &TypeLists, label: &str) {
        if types.let_all_through() {
            return;
        }
        for document in self.fates.open(&self.documents) {
            let entry = self.documents.entry(document);
            let (block, row) = self.documents.place(entry);
            if let Some(reason) = types.excludes(block.event_type(row), block.feed) {
                let fate = Fate::Dropped(format!("{reason} by {label}"));
                self.fates.settle(&self.documents, document, label, fate);
            }
        }
    }

    fn call<S: Stage>(&mut self, stage: &S) -> Result<(), BatchError> {
        let label = || stage.label().to_owned();
        if self.cpu > self.cpu_budget {
            return Err(BatchError::CpuBudget {
                label: label(),
                budget: self.cpu_budget,
            });
        }
        let Some(search) = &mut self.search else {
            return Ok(());
        };
        let Some(Attempt { range, fresh }) = search.isolation.current() else {
            return Ok(());
        };
        let events: Vec<EventView<'_>> = search.documents[range]
            .iter()
            .map(|&document| self.documents.event(document))
            .collect();
        // A call that fails leaves nothing behind.
        let mut state = self.states[self.stage].clone();
        let context = self.documents.context();
        let answered = match &mut search.isolation {
            SearchOf::Filter(isolation) => {
                let called = stage.filter(context, &events, &mut state, fresh);
                Answered::of(called, stage.label(), isolation)
            }
            SearchOf::Mapper(isolation) => {
                let called = stage.transform(context, &events, &mut state, fresh);
                self.made += called.result.iter().flatten().map(bytes_of).sum::<usize>();
                Answered::of(called, stage.label(), isolation)
            }
        };
        self.cpu += answered.cpu;
        self.failed = answered.failed;
        if answered.succeeded {
            self.states[self.stage] = state;
        }
        self.check_made(stage.label())?;
        answered.result.map_err(|error| BatchError::Component {
            label: label(),
            error,
        })
    }

    fn check_made(&self, label: &str) -> Result<(), BatchError> {
        // A single event has the limits of a call.
        if self.made > self.made_max && self.documents.entries() > 1 {
            return Err(BatchError::TooMuch {
                label: label.to_owned(),
                made: format!("{} MiB of documents", self.made >> 20),
            });
        }
        Ok(())
    }

    fn apply_results<S: Stage>(&mut self, stage: &S, search: Search) -> Result<(), BatchError> {
        let Search {
            documents: searched,
            isolation,
        } = search;
        match isolation {
            SearchOf::Filter(isolation) => {
                for (range, piece) in isolation.into_pieces() {
                    let documents = &searched[range];
                    match piece {
                        Piece::Failed(reason) => self.fail(stage, documents[0], reason),
                        Piece::Result(verdicts) => {
                            for (&document, verdict) in documents.iter().zip(verdicts) {
                                if let Verdict::Drop(reason) = verdict {
                                    self.drop(stage, document, reason);
                                }
                            }
                        }
                    }
                }
                Ok(())
            }
            SearchOf::Mapper(isolation) => {
                for (range, piece) in isolation.into_pieces() {
                    let documents = &searched[range];
                    match piece {
                        Piece::Failed(reason) => self.fail(stage, documents[0], reason),
                        Piece::Result(mapped) => {
                            for (&document, mapped) in documents.iter().zip(mapped) {
                                self.replace(stage, document, mapped)?;
                            }
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn replace<S: Stage>(
        &mut self,
        stage: &S,
        document: DocumentIndex,
        mapped: Mapped,
    ) -> Result<(), BatchError> {
        match mapped {
            Mapped::Drop(reason) => self.drop(stage, document, reason),
            Mapped::Reject(reason) => self.fail(stage, document, reason),
            Mapped::Emit(mapped) if mapped.is_empty() => {
                let fate = Fate::Dropped("empty".to_owned());
                self.fates
                    .settle(&self.documents, document, stage.label(), fate);
            }
            Mapped::Emit(mapped) if mapped.len() > FAN_OUT_OF_EVENT_MAX => {
                let made = mapped.len();
                let reason = format!(
                    "the mapper made {made} documents from it; the limit is {FAN_OUT_OF_EVENT_MAX}"
                );
                self.fail(stage, document, reason);
            }
            Mapped::Emit(mapped) => return self.emit(stage, document, mapped),
        }
        Ok(())
    }

    fn emit<S: Stage>(
        &mut self,
        stage: &S,
        document: DocumentIndex,
        mapped: Vec<MappedDocument>,
    ) -> Result<(), BatchError> {
        let entries = self.documents.entries();
        let max = (entries * FAN_OUT_OF_BATCH_MAX).max(FAN_OUT_OF_EVENT_MAX);
        let documents = self.documents.len() - 1 + mapped.len();
        if documents > max && entries > 1 {
            return Err(BatchError::TooMuch {
                label: stage.label().to_owned(),
                made: format!("{documents} documents"),
            });
        }
        let added = mapped.len() - 1;
        // Each of them gets the attributes that the document has.
        self.made += added * self.documents.attribute_bytes(document);
        self.check_made(stage.label())?;
        self.fates.add(self.documents.entry(document), added);
        self.documents.replace(document, mapped);
        Ok(())
    }

    fn drop<S: Stage>(&mut self, stage: &S, document: DocumentIndex, reason: u32) {
        let reason = match stage.setup().reasons.get(reason as usize) {
            Some(reason) => reason.clone(),
            None => format!("{} (reason {reason})", stage.label()),
        };
        self.fates.settle(
            &self.documents,
            document,
            stage.label(),
            Fate::Dropped(reason),
        );
    }

    fn fail<S: Stage>(&mut self, stage: &S, document: DocumentIndex, reason: String) {
        self.fates
            .settle(&self.documents, document, stage.label(), Fate::Dead(reason));
    }
}

/// All that it does is in its setup, and the host's work.
fn is_without_calls(stage: &impl Stage) -> bool {
    stage.kind() == StageKind::Filter && stage.setup().access == Access::Types
}

/// Bytes of the documents that were made of an event.
fn bytes_of(mapped: &Mapped) -> usize {
    let Mapped::Emit(documents) = mapped else {
        return 0;
    };
    let bytes = |document: &MappedDocument| {
        let attributes = document.attributes.iter();
        let attributes: usize = attributes
            .map(|(name, value)| name.len() + value.len())
            .sum();
        document.payload.len() + attributes
    };
    documents.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use lockgate_model::contract::{BatchContext, StageSetup};

    use super::*;
    use crate::testing;

    /// Makes these documents of each event.
    struct TestMapper {
        setup: StageSetup,
        documents: Vec<MappedDocument>,
    }

    impl Stage for TestMapper {
        fn label(&self) -> &str {
            "stage 1 (test)"
        }

        fn kind(&self) -> StageKind {
            StageKind::Mapper
        }

        fn setup(&self) -> &StageSetup {
            &self.setup
        }

        fn filter(
            &self,
            _: &BatchContext,
            _: &[EventView<'_>],
            _: &mut StateOverlay,
            _: bool,
        ) -> Called<Vec<Verdict>> {
            unreachable!("it is a mapper")
        }

        fn transform(
            &self,
            _: &BatchContext,
            events: &[EventView<'_>],
            _: &mut StateOverlay,
            _: bool,
        ) -> Called<Vec<Mapped>> {
            let mapped = events.iter().map(|_| Mapped::Emit(self.documents.clone()));
            Called::free(Ok(mapped.collect()))
        }
    }

    fn mapper(documents: Vec<MappedDocument>) -> TestMapper {
        TestMapper {
            setup: StageSetup {
                types: TypeLists::default(),
                access: Access::Payload,
                reasons: Vec::new(),
            },
            documents,
        }
    }

    fn mapped(payload: &str, attributes: &[(&str, &str)]) -> MappedDocument {
        let attributes = attributes.iter();
        MappedDocument {
            payload: payload.to_owned(),
            attributes: attributes
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// So many events pass through the stages.
    fn run(events: usize, stages: &[TestMapper]) -> (Step, Documents) {
        let keys: Vec<String> = (0..events).map(|event| event.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut run = StageRun::new(
            testing::documents(&keys),
            vec![StateOverlay::default(); stages.len()],
            Duration::from_secs(1),
            None,
        );
        loop {
            match run.step(stages) {
                Step::More => {}
                step => return (step, run.into_output().documents),
            }
        }
    }

    /// One of them is a letter that was written off, so its event is not kept.
    #[test]
    fn events_without_json_are_dead_for_their_own_reasons() {
        let documents = testing::raw_documents(&[b"\xff", b""]);
        let states = Vec::new();
        let run = StageRun::new(documents, states, Duration::from_secs(1), None);
        let StageOutput {
            documents,
            mut fates,
            ..
        } = run.into_output();
        let dead: Vec<(String, String)> = fates
            .take_final(&documents, false)
            .into_iter()
            .flat_map(|finished| finished.dead)
            .map(|letter| (letter.cause, letter.reason))
            .collect();
        let expected = [
            ("unreadable", "the event could not be turned into JSON"),
            (
                "store",
                "its event is not kept: its block in the store was damaged, and was given up",
            ),
        ];
        assert_eq!(
            dead,
            expected.map(|(cause, reason)| (cause.to_owned(), reason.to_owned()))
        );
    }

    #[test]
    fn a_batch_of_which_a_mapper_makes_too_many_bytes_is_stopped() {
        let run = |events, bytes| {
            let stage = mapper(vec![mapped(&"x".repeat(bytes), &[])]);
            run(events, &[stage]).0
        };
        assert_eq!(run(100, 40 << 10), Step::Done);
        let too_much = BatchError::TooMuch {
            label: "stage 1 (test)".to_owned(),
            made: "5 MiB of documents".to_owned(),
        };
        assert_eq!(run(100, 60 << 10), Step::Failed(too_much));
        let one = run(1, 60 << 20);
        assert_eq!(one, Step::Done, "an event has the limits of a call");
    }

    /// All but the first once lost what the first mapper had set.
    #[test]
    fn documents_of_a_second_mapper_keep_the_attributes_of_the_first() {
        let first = mapped("{}", &[("index", "auth"), ("tenant", "blue")]);
        let second = vec![
            mapped("{}", &[("tenant", "red")]),
            mapped("{}", &[]),
            mapped("{}", &[("severity", "low"), ("severity", "high")]),
        ];
        let (step, documents) = run(1, &[mapper(vec![first]), mapper(second)]);
        assert_eq!(step, Step::Done);
        let attributes = |document| {
            let view = documents.view(DocumentIndex::new(document));
            let pairs = view.attributes.iter();
            pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(documents.len(), 3);
        assert_eq!(attributes(0), "index=auth tenant=red", "the last one wins");
        assert_eq!(attributes(1), "index=auth tenant=blue");
        assert_eq!(attributes(2), "index=auth tenant=blue severity=high");
    }

    #[test]
    fn attributes_that_documents_inherit_count() {
        let long = "x".repeat(5 << 10);
        let stages = [
            mapper(vec![mapped("{}", &[("index", &long)])]),
            mapper(vec![mapped("{}", &[]); 50]),
        ];
        let too_much = BatchError::TooMuch {
            label: "stage 1 (test)".to_owned(),
            made: "4 MiB of documents".to_owned(),
        };
        assert_eq!(run(20, &stages).0, Step::Failed(too_much));
        assert_eq!(run(10, &stages).0, Step::Done);
    }
}
