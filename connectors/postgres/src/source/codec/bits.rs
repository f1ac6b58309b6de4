//! `bytea` in hex and bit strings.

use tidewater_plugin_api::ValueWriter;

use super::{Fit, Unfit};

const NOT_HEX: Unfit = Unfit::Type("it is not bytea in hex");

fn digit(byte: u8) -> Result<u8, Unfit> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(NOT_HEX),
    }
}

/// Decodes `\x…` and hands the bytes out in chunks.
pub(crate) fn hex_into(text: &[u8], mut write: impl FnMut(&[u8])) -> Fit {
    let digits = text.strip_prefix(b"\\x").ok_or(NOT_HEX)?;
    if !digits.len().is_multiple_of(2) {
        return Err(NOT_HEX);
    }
    let mut chunk = [0; 256];
    for part in digits.chunks(512) {
        for (byte, pair) in chunk.iter_mut().zip(part.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        write(&chunk[..part.len() / 2]);
    }
    Ok(())
}

/// The bytes of `\x…`.
pub(crate) fn hex(text: &[u8]) -> Result<Vec<u8>, Unfit> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    hex_into(text, |chunk| bytes.extend_from_slice(chunk))?;
    Ok(bytes)
}

/// A bit string as bytes, its last bit the least significant of the first byte.
pub(crate) fn bits(text: &[u8], out: &mut ValueWriter<'_>) -> Fit {
    let open = out.begin();
    for part in text.rchunks(8) {
        let mut byte = 0;
        for &bit in part {
            byte = byte << 1
                | match bit {
                    b'0' => 0,
                    b'1' => 1,
                    _ => return Err(Unfit::Type("it is not a bit string")),
                };
        }
        out.raw(&[byte]);
    }
    out.end(open);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_little_endian() {
        let mut buffer = Vec::new();
        bits(b"1000000011", &mut ValueWriter::new(&mut buffer)).unwrap();
        assert_eq!(buffer, [2, 0, 0, 0, 0b0000_0011, 0b10]);
    }

    #[test]
    fn hex_decodes_across_chunks() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let text: String = std::iter::once("\\x".to_owned())
            .chain(bytes.iter().map(|b| format!("{b:02x}")))
            .collect();
        assert_eq!(hex(text.as_bytes()).unwrap(), bytes);
        for bad in ["", "\\x0", "\\x0g", "00"] {
            assert_eq!(hex(bad.as_bytes()), Err(NOT_HEX), "{bad}");
        }
    }
}
