//! gzip and zstd, both ways; the way back with a bound.

use std::io::{self, Read, Write as _};

use flate2::{read::MultiGzDecoder, write::GzEncoder};

/// How requests are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// As every collector understands it.
    Gzip,
    /// Smaller at less cost, where the collector understands it.
    Zstd,
}

impl Compression {
    /// The value of `Content-Encoding`; none without compression.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
        }
    }

    /// Appends the compressed bytes to `out`.
    pub(crate) fn compress(self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Compression::None => out.extend_from_slice(bytes),
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(out, flate2::Compression::fast());
                encoder.write_all(bytes)?;
                encoder.finish()?;
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::Encoder::new(out, 1)?;
                encoder.write_all(bytes)?;
                encoder.finish()?;
            }
        }
        Ok(())
    }
}

/// Reads what a server sent, decompressed, but never more than so many bytes.
///
/// # Errors
/// If it is longer, damaged, or compressed in an unknown way.
pub(crate) fn decompressed(bytes: impl Read, encoding: Option<&str>, most_bytes: usize) -> io::Result<Vec<u8>> {
    match encoding.map(str::trim) {
        None | Some("" | "identity") => bounded(bytes, most_bytes),
        Some("gzip" | "x-gzip") => bounded(MultiGzDecoder::new(bytes), most_bytes),
        Some("zstd") => bounded(zstd::stream::Decoder::new(bytes)?, most_bytes),
        Some(_) => Err(io::Error::other("compressed in an unknown way")),
    }
}

fn bounded(bytes: impl Read, most_bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    bytes.take(most_bytes as u64 + 1).read_to_end(&mut out)?;
    if out.len() > most_bytes {
        return Err(io::Error::other(format!("longer than {most_bytes} bytes")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_is_read_back_and_no_bomb_goes_off() {
        let text = b"kastor ".repeat(1_000_000);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut small = Vec::new();
            compression.compress(&text, &mut small).unwrap();
            let read = |most_bytes| decompressed(&small[..], compression.name(), most_bytes);
            assert_eq!(read(text.len()).unwrap(), text, "{compression:?}");
            assert!(read(text.len() - 1).is_err(), "{compression:?}");
        }
        assert!(decompressed(&b"x"[..], Some("br"), 10).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, at in 0..4_usize) {
            let encoding = [None, Some("gzip"), Some("zstd"), Some("identity")][at];
            if let Ok(read) = decompressed(&bytes[..], encoding, 1000) {
                proptest::prop_assert!(read.len() <= 1000);
            }
        }
    }
}
