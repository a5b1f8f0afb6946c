//! Compressed bodies of requests.

use std::fmt;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::HeaderValue;
use tokio::sync::oneshot;
use zstd::stream::write::Encoder as ZstdEncoder;

/// Bodies up to this size are compressed in place: passing them to another thread costs more.
const SMALL: usize = 4096;
/// What is compressed in one step: about a millisecond's work.
const STEP: usize = 32 << 10;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// A `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

/// The threads on which bodies are compressed. Compressing takes more time than everything else
/// that is done for a request, so pipelines have to take turns.
pub trait Workers: fmt::Debug + Send + Sync {
    /// Calls `step` until it returns false. Others may have their turns between two calls. Without
    /// a pipeline any more, it may end earlier.
    fn work(&self, step: Step) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// A step of some work, of about a millisecond. Returns whether there is more to do.
pub type Step = Box<dyn FnMut() -> bool + Send>;

/// Compresses the bodies of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Compressor {
    compression: Compression,
    /// `None`: in place.
    workers: Option<Arc<dyn Workers>>,
}

/// A body that is being compressed.
struct Compressing {
    encoder: Encoder,
    left: Bytes,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Compressor {
    pub(crate) fn new(compression: Compression, workers: Option<Arc<dyn Workers>>) -> Compressor {
        Compressor {
            compression,
            workers,
        }
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_static(match self.compression {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }

    /// Compresses a body, away from the threads that serve connections.
    pub(crate) async fn compress(&self, body: Bytes) -> io::Result<Bytes> {
        let is_small = body.len() <= SMALL;
        let mut compressing = Compressing::new(self.compression, body)?;
        let Some(workers) = self.workers.as_ref().filter(|_| !is_small) else {
            while compressing.step()? {}
            return compressing.finish();
        };
        let (done, compressed) = oneshot::channel();
        let mut state = Some((compressing, done));
        let step = move || {
            let Some((compressing, _)) = &mut state else {
                return false;
            };
            let stepped = compressing.step();
            if matches!(stepped, Ok(true)) {
                return true;
            }
            if let Some((compressing, done)) = state.take() {
                // Fails if nobody waits for it any more.
                let _ = done.send(stepped.and_then(|_| compressing.finish()));
            }
            false
        };
        workers.work(Box::new(step)).await;
        let ended = |_| Err(io::Error::other("the pipeline has ended"));
        compressed.await.unwrap_or_else(ended)
    }
}

impl Compressing {
    fn new(compression: Compression, body: Bytes) -> io::Result<Compressing> {
        let encoder = match compression {
            Compression::Gzip => {
                Encoder::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default()))
            }
            Compression::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_pledged_src_size(Some(body.len() as u64))?;
                Encoder::Zstd(encoder)
            }
        };
        Ok(Compressing {
            encoder,
            left: body,
        })
    }

    /// Returns whether there is more to do.
    fn step(&mut self) -> io::Result<bool> {
        let next = self.left.split_to(STEP.min(self.left.len()));
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.write_all(&next)?,
            Encoder::Zstd(encoder) => encoder.write_all(&next)?,
        }
        Ok(!self.left.is_empty())
    }

    fn finish(self) -> io::Result<Bytes> {
        match self.encoder {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
        .map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts the steps, and does so many of each work at most.
    #[derive(Debug)]
    struct Counted(AtomicUsize, usize);

    impl Workers for Counted {
        fn work(&self, mut step: Step) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            let Counted(count, most) = self;
            Box::pin(async move {
                for _ in 0..*most {
                    count.fetch_add(1, Ordering::Relaxed);
                    if !step() {
                        return;
                    }
                }
            })
        }
    }

    fn body(size: usize) -> Bytes {
        (0..size).map(|at| (at % 251) as u8).collect()
    }

    #[tokio::test]
    async fn a_body_is_the_same_once_it_is_unpacked() {
        for size in [0, 1, SMALL, SMALL + 1, STEP, STEP + 1, 3 << 20] {
            let body = body(size);
            let workers = Arc::new(Counted(AtomicUsize::new(0), usize::MAX));
            let compress = async |compression| {
                let compressor = Compressor::new(compression, Some(workers.clone()));
                compressor.compress(body.clone()).await.unwrap()
            };
            let gzip = compress(Compression::Gzip).await;
            let mut unpacked = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&*gzip);
            reader.read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, body);
            let zstd = compress(Compression::Zstd).await;
            assert_eq!(zstd::decode_all(&*zstd).unwrap(), body);
            assert!(size < 1000 || gzip.len().max(zstd.len()) < size / 2);
            let steps = if size <= SMALL {
                0
            } else {
                size.div_ceil(STEP)
            };
            assert_eq!(workers.0.load(Ordering::Relaxed), 2 * steps, "{size}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_compressed_to_its_end_is_an_error() {
        let workers = Counted(AtomicUsize::new(0), 3);
        let compressor = Compressor::new(Compression::Gzip, Some(Arc::new(workers)));
        let error = compressor.compress(body(8 * STEP)).await.unwrap_err();
        assert_eq!(error.to_string(), "the pipeline has ended");
    }
}
