//! Where a bracketed text ends, while it arrives.

/// Counts brackets outside Python's string literals.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    /// Bytes looked at so far.
    at: usize,
    depth: usize,
    quote: Option<char>,
    is_escaped: bool,
}

impl Balance {
    /// Looks at what is new in `text`, which begins with a bracket and has only
    /// grown since. Bytes up to where that bracket is closed, if it is.
    pub(crate) fn end(&mut self, text: &str) -> Option<usize> {
        for c in text[self.at..].chars() {
            self.at += c.len_utf8();
            match (self.quote, c) {
                _ if self.is_escaped => self.is_escaped = false,
                (Some(_), '\\') => self.is_escaped = true,
                (Some(quote), _) if quote == c => self.quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => self.quote = Some(c),
                (None, '[' | '(' | '{') => self.depth += 1,
                (None, ']' | ')' | '}') => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.at);
                    }
                }
                (None, _) => {}
            }
        }
        None
    }
}
