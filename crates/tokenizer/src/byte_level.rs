//! GPT-2's spelling of bytes as printable characters, which byte-level
//! vocabularies are written in.

use std::collections::HashMap;

/// The character that stands for each byte: printable Latin-1 is itself, the
/// other 68 bytes follow each other from U+0100.
pub(crate) fn alphabet() -> [char; 256] {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut alphabet = std::array::from_fn(|byte| char::from(byte as u8));
    let others = (0..=u8::MAX).filter(|&byte| !printable(byte));
    for (byte, stand_in) in others.zip('\u{100}'..) {
        alphabet[usize::from(byte)] = stand_in;
    }
    alphabet
}

/// The byte that each character stands for.
pub(crate) fn byte_of_char() -> HashMap<char, u8> {
    alphabet().into_iter().zip(0..=u8::MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let bytes = byte_of_char();
        assert_eq!(bytes.len(), 256);
        assert_eq!([bytes[&'Ġ'], bytes[&'Ċ'], bytes[&'ł'], bytes[&'Ń']], [32, 10, 160, 173]);
        assert_eq!(alphabet()[usize::from(b'A')], 'A');
    }
}
