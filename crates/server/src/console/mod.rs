//! The page for people: a chat with what the server says about itself beside it.
//!
//! Plain files in this folder, embedded as they are: no build step, and nothing is
//! fetched from elsewhere. The page is public, like any program; what it shows needs the
//! key. Its policy allows no script but these files, and no text to become markup.
//!
//! Upstream has no such page: `/` answers a line of text, and still does to those that
//! do not ask for HTML.

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderName, Method, Uri, header},
    response::{IntoResponse, Response},
};

use crate::routes::root::not_found_error;

/// Where the page's files are.
const FOLDER: &str = "/console/";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

/// Sorted by name.
static ASSETS: &[Asset] = &[
    asset("chat.css", CSS, include_str!("chat.css")),
    asset("chat.js", JAVASCRIPT, include_str!("chat.js")),
    asset("client.js", JAVASCRIPT, include_str!("client.js")),
    asset("console.css", CSS, include_str!("console.css")),
    asset("console.js", JAVASCRIPT, include_str!("console.js")),
    asset("dom.js", JAVASCRIPT, include_str!("dom.js")),
    asset("icon.svg", SVG, include_str!("icon.svg")),
    asset("live.js", JAVASCRIPT, include_str!("live.js")),
    asset("markdown.js", JAVASCRIPT, include_str!("markdown.js")),
    asset("messages.js", JAVASCRIPT, include_str!("messages.js")),
    asset("panel.css", CSS, include_str!("panel.css")),
    asset("plot.js", JAVASCRIPT, include_str!("plot.js")),
    asset("settings.js", JAVASCRIPT, include_str!("settings.js")),
    asset("shortcuts.js", JAVASCRIPT, include_str!("shortcuts.js")),
    asset("timing.js", JAVASCRIPT, include_str!("timing.js")),
    asset("tools.js", JAVASCRIPT, include_str!("tools.js")),
];

static PAGE: Asset = asset("index.html", HTML, include_str!("index.html"));

const fn asset(name: &'static str, content_type: &'static str, text: &'static str) -> Asset {
    Asset { name, content_type, text }
}

impl Asset {
    fn response(&self) -> Response {
        let headers: [(HeaderName, &str); 6] = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            // A new version of the server brings a new page.
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "accept"),
        ];
        (headers, self.text).into_response()
    }
}

/// The page itself.
pub(crate) fn page() -> Response {
    PAGE.response()
}

/// One of the page's files.
pub(crate) async fn file(Path(name): Path<String>) -> Response {
    match ASSETS.binary_search_by_key(&name.as_str(), |asset| asset.name) {
        Ok(place) => ASSETS[place].response(),
        Err(_) => not_found_error().into_response(),
    }
}

/// True for a browser that goes to `/`; programs ask for anything, or for JSON.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accepts_html = |value: &str| {
        value.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            is_html && weight != Some(0.0)
        })
    };
    let mut values = headers.get_all(header::ACCEPT).iter();
    values.any(|value| value.to_str().is_ok_and(accepts_html))
}

/// Whether a request is for the page or a file of it, which need no key.
pub(crate) fn is_public(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let is_page = uri.path() == "/" && wants_page(headers);
    matches!(*method, Method::GET | Method::HEAD) && (is_page || uri.path().starts_with(FOLDER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_file_that_is_named_is_in_it() {
        assert!(ASSETS.is_sorted_by_key(|asset| asset.name));
        for text in ASSETS.iter().map(|asset| asset.text).chain([PAGE.text]) {
            let named = ["\"console/", "\"./"].map(|start| text.split(start).skip(1));
            for rest in named.into_iter().flatten() {
                let name = rest.split('"').next().unwrap();
                assert!(ASSETS.iter().any(|asset| asset.name == name), "{name}");
            }
        }
    }

    #[test]
    fn nothing_in_the_page_needs_a_looser_policy() {
        for asset in ASSETS.iter().chain([&PAGE]) {
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "style=\"", " onclick="]
            {
                assert!(!asset.text.contains(forbidden), "{}: {forbidden}", asset.name);
            }
            let namespace = "http://www.w3.org/2000/svg";
            assert!(!asset.text.replace(namespace, "").contains("://"), "{}: a host", asset.name);
        }
    }

    #[test]
    fn only_a_browser_gets_the_page() {
        let asks = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            wants_page(&headers)
        };
        assert!(asks("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(asks("application/json, text/HTML;q=0.1"));
        for other in ["*/*", "text/*", "application/json", "text/html;q=0", "text/htmlx", ""] {
            assert!(!asks(other), "{other}");
        }
        assert!(!wants_page(&HeaderMap::new()));
    }
}
