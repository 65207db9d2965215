//! Server-sent events out of a body that arrives in pieces.

/// Collects bytes and hands out the payloads of whole `data:` lines.
#[derive(Debug, Default)]
pub(crate) struct SseDecoder {
    buffer: Vec<u8>,
    /// Start of what was not handed out.
    read: usize,
}

impl SseDecoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next payload, if its line has ended.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let rest = &self.buffer[self.read..];
            let end = rest.iter().position(|&byte| byte == b'\n')?;
            let line = self.read..self.read + end;
            self.read = line.end + 1;
            if self.buffer[line.clone()].starts_with(b"data:") {
                return Some(self.buffer[line.start + b"data:".len()..line.end].trim_ascii());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(0_usize..60, 0..8)) {
            let body = b"data: {\"a\":1}\r\n\r\n: comment\nevent: x\ndata:two\n\ndata: [DONE]\n\n";
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let mut decoder = SseDecoder::default();
            let mut payloads = Vec::new();
            for pair in cuts.windows(2) {
                decoder.push(&body[pair[0]..pair[1]]);
                while let Some(payload) = decoder.next() {
                    payloads.push(String::from_utf8(payload.to_vec()).unwrap());
                }
            }
            prop_assert_eq!(payloads, ["{\"a\":1}", "two", "[DONE]"]);
        }
    }
}
