//! Writes the XML of Query replies.

use std::collections::BTreeMap;

use super::error::ApiError;

/// Elements are opened and closed in pairs by taking closures, so a reply is always well formed.
#[derive(Debug, Default)]
pub(crate) struct Xml {
    out: String,
}

impl Xml {
    /// An element holding others.
    pub(crate) fn node(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        self.mark("<", name);
        inner(self);
        self.mark("</", name);
    }

    /// An element holding text.
    pub(crate) fn leaf(&mut self, name: &str, text: impl AsRef<str>) {
        self.mark("<", name);
        escape(&mut self.out, text.as_ref());
        self.mark("</", name);
    }

    fn mark(&mut self, open: &str, name: &str) {
        self.out.push_str(open);
        self.out.push_str(name);
        self.out.push('>');
    }

    /// A list of `Tag`s.
    pub(crate) fn tags(&mut self, name: &str, tags: &BTreeMap<String, String>) {
        self.node(name, |xml| {
            for (key, value) in tags {
                xml.node("Tag", |xml| {
                    xml.leaf("Key", key);
                    xml.leaf("Value", value);
                });
            }
        });
    }

    /// As [`Xml::leaf`], or nothing.
    pub(crate) fn maybe(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.leaf(name, text);
        }
    }
}

/// The reply of an operation that succeeded.
pub(crate) fn success(namespace: &str, action: &str, request_id: &str, result: Xml) -> String {
    let result = result.out;
    format!(
        "<{action}Response xmlns=\"{namespace}\"><{action}Result>{result}</{action}Result>\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    )
}

/// The reply of an operation that failed.
pub(crate) fn failure(namespace: &str, request_id: &str, error: &ApiError) -> String {
    let fault = if error.status < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    let mut xml = Xml::default();
    xml.node("Error", |xml| {
        xml.leaf("Type", fault);
        xml.leaf("Code", &error.code);
        xml.leaf("Message", &error.message);
    });
    xml.leaf("RequestId", request_id);
    format!(
        "<ErrorResponse xmlns=\"{namespace}\">{}</ErrorResponse>",
        xml.out
    )
}

/// Replaces the text of every element `name` that holds text only, or leaves the element out.
pub(crate) fn damage(body: &str, name: &str, text: Option<&str>) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some((before, after)) = rest.split_once(&open) {
        let Some((held, after_close)) = after.split_once(&close) else {
            break;
        };
        if held.contains('<') {
            out.push_str(before);
            out.push_str(&open);
            rest = after;
            continue;
        }
        out.push_str(before);
        if let Some(text) = text {
            out.push_str(&open);
            escape(&mut out, text);
            out.push_str(&close);
        }
        rest = after_close;
    }
    out.push_str(rest);
    out
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push_str(&format!("&#{};", u32::from(c))),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let mut xml = Xml::default();
        xml.leaf("Value", "a<b>&\"c\"");
        assert_eq!(xml.out, "<Value>a&lt;b&gt;&amp;&quot;c&quot;</Value>");
    }

    #[test]
    fn damage_replaces_or_removes_every_such_element() {
        let body = "<R><Port>1</Port><X><Port>2</Port></X></R>";
        assert_eq!(
            damage(body, "Port", Some("z")),
            "<R><Port>z</Port><X><Port>z</Port></X></R>"
        );
        assert_eq!(damage(body, "Port", None), "<R><X></X></R>");
        assert_eq!(damage(body, "X", None), body);
    }
}
