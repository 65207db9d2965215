//! Functions and parameters as tags: Qwen 3 Coder and MiniMax M2.
//!
//! `<tool_call><function=name><parameter=key>value</parameter>...</function>
//! </tool_call>`, and the same with other words. A parameter also ends where
//! the next begins or where the function ends.
//!
//! Upstream: `sglang/srt/function_call/{qwen3_coder_detector,minimax_m2}.py`.

use serde_json::Value;

use super::{
    Calls, ToolCallParser, read_text,
    schema::{Convert, by_schema, first_fitting},
};
use crate::text::{Rest, Until};

/// The tags of a format.
#[derive(Debug)]
struct Format {
    section: (&'static str, &'static str),
    function: (&'static str, &'static str),
    parameter: (&'static str, &'static str),
    /// Ends the name in an opening tag.
    name_end: &'static str,
    /// A function may stand outside a section.
    is_section_optional: bool,
    convert: Convert,
}

static QWEN3_CODER: Format = Format {
    section: ("<tool_call>", "</tool_call>"),
    function: ("<function=", "</function>"),
    parameter: ("<parameter=", "</parameter>"),
    name_end: ">",
    is_section_optional: true,
    convert: by_schema,
};

static MINIMAX_M2: Format = Format {
    section: ("<minimax:tool_call>", "</minimax:tool_call>"),
    function: ("<invoke name=", "</invoke>"),
    parameter: ("<parameter name=", "</parameter>"),
    name_end: ">",
    is_section_optional: false,
    convert: first_fitting,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Xml {
    format: &'static Format,
    place: Place,
    function: String,
    parameter: String,
    num_parameters: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Text,
    /// In a section, between functions.
    Section,
    FunctionName,
    /// In a function, between parameters.
    Function,
    ParameterName,
    Value,
}

impl Xml {
    pub(super) fn qwen3_coder() -> Self {
        Self::new(&QWEN3_CODER)
    }

    pub(super) fn minimax_m2() -> Self {
        Self::new(&MINIMAX_M2)
    }

    fn new(format: &'static Format) -> Self {
        Self {
            format,
            place: Place::Text,
            function: String::new(),
            parameter: String::new(),
            num_parameters: 0,
        }
    }

    fn text(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let (section, function) = (self.format.section.0, self.format.function.0);
        let markers = [section, function];
        let num_markers = if self.format.is_section_optional { 2 } else { 1 };
        Some(read_text(rest, &markers[..num_markers], calls)?.unwrap_or_else(|marker| {
            calls.open();
            let is_section = marker == section;
            self.place = if is_section { Place::Section } else { Place::FunctionName };
            marker.len()
        }))
    }

    fn section(&mut self, rest: &Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let (open, close) = (self.format.function.0, self.format.section.1);
        match (rest.starts_with(open), rest.starts_with(close)) {
            (Some(true), _) => {
                self.place = Place::FunctionName;
                Some(open.len())
            }
            (_, Some(true)) => {
                calls.close();
                self.place = Place::Text;
                Some(close.len())
            }
            (None, _) | (_, None) => None,
            (Some(false), Some(false)) => {
                calls.give_up("");
                self.place = Place::Text;
                Some(0)
            }
        }
    }

    fn function_name(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let end = self.format.name_end;
        // Where another tag begins, the name has not ended.
        let Until::Marker { at, marker } = rest.until(&[end, "<"]) else { return None };
        self.function = unquoted(&rest.text[..at]);
        if marker != end || self.function.is_empty() || self.function.contains('\n') {
            calls.give_up("");
            self.place = Place::Text;
            return Some(0);
        }
        calls.call(&self.function);
        self.num_parameters = 0;
        self.place = Place::Function;
        Some(at + end.len())
    }

    /// What is between parameters means nothing.
    fn function(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let format = self.format;
        match rest.until(&[format.parameter.0, format.function.1]) {
            Until::Marker { at, marker } if marker == format.parameter.0 => {
                self.place = Place::ParameterName;
                Some(at + marker.len())
            }
            Until::Marker { at, marker } => {
                calls.arguments(if self.num_parameters == 0 { "{}" } else { "}" });
                calls.end_call();
                self.place = Place::Section;
                Some(at + marker.len())
            }
            Until::Safe(_) => None,
        }
    }

    fn parameter_name(&mut self, rest: &mut Rest<'_>) -> Option<usize> {
        let end = self.format.name_end;
        let at = rest.find(end)?;
        self.parameter = unquoted(&rest.text[..at]);
        self.place = Place::Value;
        Some(at + end.len())
    }

    fn value(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        let format = self.format;
        let markers = [format.parameter.1, format.parameter.0, format.function.1];
        let Until::Marker { at, marker } = rest.until(&markers) else { return None };
        let text = &rest.text[..at];
        let text = text.strip_prefix('\n').unwrap_or(text);
        let text = text.strip_suffix('\n').unwrap_or(text);
        let schema = calls.tools().parameter(&self.function, &self.parameter);
        let value = (format.convert)(text, schema);
        let separator = if self.num_parameters == 0 { "{" } else { ", " };
        let key = Value::from(self.parameter.as_str());
        calls.arguments(&format!("{separator}{key}: {}", super::dump(&value)));
        self.num_parameters += 1;
        self.place = Place::Function;
        Some(if marker == format.parameter.1 { at + marker.len() } else { at })
    }
}

fn unquoted(name: &str) -> String {
    name.trim().trim_matches(['"', '\'']).to_owned()
}

impl ToolCallParser for Xml {
    fn step(&mut self, rest: &mut Rest<'_>, calls: &mut Calls) -> Option<usize> {
        if self.place == Place::Section && rest.blank() > 0 {
            return Some(rest.blank());
        }
        match self.place {
            Place::Text => self.text(rest, calls),
            Place::Section => self.section(rest, calls),
            Place::FunctionName => self.function_name(rest, calls),
            Place::Function => self.function(rest, calls),
            Place::ParameterName => self.parameter_name(rest),
            Place::Value => self.value(rest, calls),
        }
    }
}
