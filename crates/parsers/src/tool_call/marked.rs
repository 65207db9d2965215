//! A header and JSON arguments between special tokens: DeepSeek and Kimi.
//!
//! Upstream: `sglang/srt/function_call/{deepseekv3,deepseekv31,kimik2}_detector.py`.

use serde_json::Map;

use super::{
    Calls, ToolCallParser,
    object::{Arguments, Fed},
    read_text,
};
use crate::text::{Rest, Until};

/// The tokens of a format.
#[derive(Debug)]
struct Format {
    section_open: &'static str,
    section_close: &'static str,
    call_open: &'static str,
    call_close: &'static str,
    /// What ends the parts of the header; the last part says which function.
    header: &'static [&'static str],
    /// What comes between the arguments and `call_close`, if anything.
    fence: &'static str,
    has_ids: bool,
}

/// `function<sep>name`, then the arguments in a Markdown block.
static DEEPSEEK_V3: Format = Format {
    section_open: "<｜tool▁calls▁begin｜>",
    section_close: "<｜tool▁calls▁end｜>",
    call_open: "<｜tool▁call▁begin｜>",
    call_close: "<｜tool▁call▁end｜>",
    header: &["<｜tool▁sep｜>", "\n```json\n"],
    fence: "```",
    has_ids: false,
};

/// `name<sep>` and the arguments.
static DEEPSEEK_V31: Format =
    Format { header: &["<｜tool▁sep｜>"], fence: "", ..copy_of(&DEEPSEEK_V3) };

/// `functions.name:index` and the arguments; some outputs have the bare index.
static KIMI_K2: Format = Format {
    section_open: "<|tool_calls_section_begin|>",
    section_close: "<|tool_calls_section_end|>",
    call_open: "<|tool_call_begin|>",
    call_close: "<|tool_call_end|>",
    header: &["<|tool_call_argument_begin|>"],
    fence: "",
    has_ids: true,
};

const fn copy_of(format: &Format) -> Format {
    Format { ..*format }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Marked {
    format: &'static Format,
    place: Place,
    arguments: Arguments,
}

#[derive(Debug, Clone, PartialEq)]
enum Place {
    Text,
    /// In a section, between calls.
    Section,
    /// In the header's part of this number.
    Header(usize),
    Arguments,
    /// After the arguments.
    Fence,
    Close,
    /// The arguments decide which function it is.
    Unnamed,
}

impl Marked {
    pub(super) fn deepseek_v3() -> Self {
        Self::new(&DEEPSEEK_V3)
    }

    pub(super) fn deepseek_v31() -> Self {
        Self::new(&DEEPSEEK_V31)
    }

    pub(super) fn kimi_k2() -> Self {
        Self::new(&KIMI_K2)
    }

    fn new(format: &'static Format) -> Self {
        Self { format, place: Place::Text, arguments: Arguments::default() }
    }

    fn give_up(&mut self, read: &str, calls: &mut Calls) -> Option<usize> {
        calls.give_up(read);
        self.place = Place::Text;
        Some(read.len())
    }

    fn text(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let format = self.format;
        let markers = [format.section_open, format.call_open];
        Some(read_text(rest, &markers, calls)?.unwrap_or_else(|marker| {
            calls.open();
            let is_call = marker == format.call_open;
            self.place = if is_call { Place::Header(0) } else { Place::Section };
            marker.len()
        }))
    }

    fn section(&mut self, rest: &Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let format = self.format;
        let (open, close) =
            (rest.starts_with(format.call_open), rest.starts_with(format.section_close));
        match (open, close) {
            (Some(true), _) => {
                self.place = Place::Header(0);
                Some(format.call_open.len())
            }
            (_, Some(true)) => {
                calls.close();
                self.place = Place::Text;
                Some(format.section_close.len())
            }
            (None, _) | (_, None) => None,
            // The section was not closed, or is none.
            (Some(false), Some(false)) => self.give_up("", calls),
        }
    }

    fn header(&mut self, part: usize, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let format = self.format;
        let markers = [format.header[part], format.call_open, format.call_close];
        let Until::Marker { at, marker } = rest.until(&markers) else { return None };
        if marker != format.header[part] {
            return self.give_up("", calls);
        }
        if part + 1 < format.header.len() {
            self.place = Place::Header(part + 1);
            return Some(at + marker.len());
        }
        self.arguments = Arguments::default();
        let header = rest.text[..at].trim();
        match if format.has_ids { name_of_id(header) } else { Some(header) } {
            Some("") => self.give_up("", calls),
            Some(name) => {
                calls.call(name);
                self.place = Place::Arguments;
                Some(at + marker.len())
            }
            None if header.chars().all(|c| c.is_ascii_digit()) => {
                self.place = Place::Unnamed;
                Some(at + marker.len())
            }
            None => self.give_up("", calls),
        }
    }

    fn arguments(&mut self, rest: &Rest<'_>, calls: &mut Calls) -> Option<usize> {
        match self.arguments.feed(rest.text, calls) {
            Fed::More => Some(rest.text.len()),
            Fed::Broken(len) => self.give_up(&rest.text[..len], calls),
            Fed::Done(len) => {
                calls.end_call();
                self.place = Place::Fence;
                Some(len)
            }
        }
    }

    fn unnamed(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let markers = [self.format.call_close, self.format.call_open];
        let Until::Marker { at, marker } = rest.until(&markers) else { return None };
        if marker == self.format.call_open {
            return self.give_up("", calls);
        }
        let arguments = rest.text[..at].trim();
        let name = serde_json::from_str::<Map<_, _>>(arguments)
            .ok()
            .and_then(|parsed| calls.tools().best_match(&parsed).map(str::to_owned));
        let Some(name) = name else { return self.give_up("", calls) };
        calls.whole_call(&name, arguments);
        self.place = Place::Fence;
        Some(at)
    }

    /// Takes `marker` if it comes next, and goes on either way.
    fn optional(&mut self, marker: &str, next: Place, rest: &Rest<'_>) -> Option<usize> {
        let is_there = rest.starts_with(marker)?;
        self.place = next;
        Some(if is_there { marker.len() } else { 0 })
    }
}

/// `functions.name:0` or `name:0`.
fn name_of_id(id: &str) -> Option<&str> {
    let (name, index) = id.rsplit_once(':')?;
    let is_index = !index.is_empty() && index.chars().all(|c| c.is_ascii_digit());
    let name = name.strip_prefix("functions.").unwrap_or(name);
    let is_name = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'));
    (is_index && is_name).then_some(name)
}

impl ToolCallParser for Marked {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        if matches!(self.place, Place::Section | Place::Fence | Place::Close) && rest.blank() > 0 {
            return Some(rest.blank());
        }
        match self.place {
            Place::Text => self.text(rest, calls),
            Place::Section => self.section(rest, calls),
            Place::Header(part) => self.header(part, rest, calls),
            Place::Arguments => self.arguments(rest, calls),
            Place::Unnamed => self.unnamed(rest, calls),
            Place::Fence => self.optional(self.format.fence, Place::Close, rest),
            Place::Close => self.optional(self.format.call_close, Place::Section, rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kimi_names_calls_by_function_and_number() {
        assert_eq!(name_of_id("functions.read_file:0"), Some("read_file"));
        assert_eq!(name_of_id("a.b-c:12"), Some("a.b-c"));
        for id in ["3", "read_file", "read file:0", "read_file:", "read_file:x"] {
            assert_eq!(name_of_id(id), None, "{id}");
        }
    }
}
