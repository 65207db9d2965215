//! Methods of Python's strings that templates call and `minijinja-contrib` lacks.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Tuple, from_args},
};

/// What `value.method(args)` means where it is not a method of the value.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = string_method(text, method, args)
    {
        return result;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match method {
        "removeprefix" => {
            one_text(args).map(|prefix| text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            one_text(args).map(|suffix| text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "partition" => separator(args).map(|separator| match text.split_once(separator) {
            Some((before, after)) => three(before, separator, after),
            None => three(text, "", ""),
        }),
        "rpartition" => separator(args).map(|separator| match text.rsplit_once(separator) {
            Some((before, after)) => three(before, separator, after),
            None => three("", "", text),
        }),
        "rsplit" => rsplit(text, args),
        _ => return None,
    })
}

fn one_text(args: &[Value]) -> Result<&str, Error> {
    from_args::<(&str,)>(args).map(|(text,)| text)
}

fn separator(args: &[Value]) -> Result<&str, Error> {
    match one_text(args)? {
        "" => Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        separator => Ok(separator),
    }
}

fn three(before: &str, separator: &str, after: &str) -> Value {
    Tuple::from([before, separator, after].map(Value::from)).into()
}

/// `rsplit(sep=None, maxsplit=-1)`; without a limit it is `split`.
fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let mut parts: Vec<&str> = match (separator, limit) {
        (Some(""), _) => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        (Some(separator), Some(limit)) => text.rsplitn(limit + 1, separator).collect(),
        (Some(separator), None) => text.rsplit(separator).collect(),
        (None, None) => text.split_whitespace().rev().collect(),
        (None, Some(_)) => {
            let detail = "rsplit: maxsplit needs a separator";
            return Err(Error::new(ErrorKind::InvalidOperation, detail));
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect::<Vec<_>>().into())
}
