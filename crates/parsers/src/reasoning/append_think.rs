//! MiniMax, for clients that cut reasoning out themselves: nothing is cut out,
//! and the tag that the prompt ended with comes first.

use super::{ReasoningParser, Separated};
use crate::text::Rest;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct AppendThink {
    has_begun: bool,
}

impl ReasoningParser for AppendThink {
    fn step(&mut self, rest: &mut Rest<'_>, out: &mut Separated) -> Option<usize> {
        if rest.text.is_empty() && !rest.is_end {
            return None;
        }
        if !self.has_begun {
            self.has_begun = true;
            out.content.push_str("<think>");
        }
        out.content.push_str(rest.text);
        Some(rest.text.len())
    }

    fn is_reasoning(&self) -> bool {
        false
    }

    fn begins_inside(&self) -> bool {
        true
    }
}
