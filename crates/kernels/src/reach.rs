//! How far back a token sees.

/// Bounds on the tokens that one sees. It sees itself and those before it that are inside
/// of both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reach {
    /// The last so many tokens, itself included.
    pub window: Option<usize>,
    /// Tokens of its own chunk: the one at position `p` sees those from `p / chunk * chunk`
    /// on. Not 0.
    pub chunk: Option<usize>,
}

impl Reach {
    /// All tokens before.
    pub const ALL: Self = Self { window: None, chunk: None };

    /// The first token that the one at `position`, from 0, sees.
    pub fn first_visible(self, position: usize) -> usize {
        let in_window = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let in_chunk = self.chunk.map_or(0, |chunk| position - position % chunk);
        in_window.max(in_chunk)
    }

    /// Most tokens that one of `len` sees.
    pub fn most_visible(self, len: usize) -> usize {
        [self.window, self.chunk].into_iter().flatten().fold(len, usize::min)
    }
}
