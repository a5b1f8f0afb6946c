//! Compressed bodies of requests.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;
use reqwest::header::HeaderValue;
use tokio::task;

/// Bodies up to this size are compressed in place: passing them to another thread costs more.
const SMALL: usize = 4096;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// A `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }

    /// Compresses a body, away from the threads that serve connections.
    pub(crate) async fn compress(self, body: Bytes) -> io::Result<Bytes> {
        if body.len() <= SMALL {
            return self.compress_here(&body);
        }
        let compressed = task::spawn_blocking(move || self.compress_here(&body));
        compressed.await.map_err(io::Error::other)?
    }

    fn compress_here(self, body: &[u8]) -> io::Result<Bytes> {
        match self {
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(body)?;
                encoder.finish()
            }
            Compression::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL),
        }
        .map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn a_body_is_the_same_once_it_is_unpacked() {
        for size in [0, 1, SMALL, SMALL + 1, 3 << 20] {
            let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let body = Bytes::from(body);
            let gzip = Compression::Gzip.compress(body.clone()).await.unwrap();
            let mut unpacked = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&*gzip);
            reader.read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, body);
            let zstd = Compression::Zstd.compress(body.clone()).await.unwrap();
            assert_eq!(zstd::decode_all(&*zstd).unwrap(), body);
            assert!(size < 1000 || gzip.len().max(zstd.len()) < size / 2);
        }
    }
}
