//! Requests that rest on a revision, and answers that name one.

use reqwest::{Method, StatusCode, header};
use serde_json::Value;

use super::{Api, REQUEST_TIMEOUT, problem};
use crate::exit::{Failure, Outcome};

/// What a write rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// It is at this revision.
    At(u64),
    /// It is not there.
    Absent,
}

impl Api {
    /// Sends a request whose answer has a revision (its ETag), and may have no body.
    pub async fn conditional(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        condition: Condition,
    ) -> Outcome<(Option<u64>, String)> {
        let (status, revision, text) = self
            .at_any(method == Method::GET, |base| {
                let mut request = self
                    .http
                    .request(method.clone(), format!("{base}{path}"))
                    .bearer_auth(&self.key)
                    .timeout(REQUEST_TIMEOUT);
                if let Some(body) = body {
                    request = request.json(body);
                }
                request = match condition {
                    Condition::None => request,
                    Condition::At(revision) => {
                        request.header(header::IF_MATCH, format!("\"{revision}\""))
                    }
                    Condition::Absent => request.header(header::IF_NONE_MATCH, "*"),
                };
                async move {
                    let response = request.send().await?;
                    let tag = response.headers().get(header::ETAG);
                    let revision =
                        tag.and_then(|tag| tag.to_str().ok()?.trim_matches('"').parse().ok());
                    Ok((response.status(), revision, response.text().await?))
                }
            })
            .await?;
        match status {
            StatusCode::PRECONDITION_FAILED => {
                let Failure { code, message } = problem(status, &text);
                Err(Failure {
                    code,
                    message: format!("nothing was changed: {message}"),
                })
            }
            status if status.is_success() => Ok((revision, text)),
            status => Err(problem(status, &text)),
        }
    }
}

/// A piece of a path, such as a key with slashes: one segment, whatever is in it.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_=.".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// `path` with those of these parameters that are given.
pub fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter();
    let given = given.filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    // Only its query is used.
    let url = reqwest::Url::parse_with_params("http://localhost/", given);
    match url.ok().as_ref().and_then(reqwest::Url::query) {
        Some(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_an_address_is_encoded() {
        assert_eq!(segment("plan.step-1_x=y"), "plan.step-1_x=y");
        assert_eq!(segment("a/./b c?"), "a%2F.%2Fb%20c%3F");
        let some = [("to", Some("an na&b".to_owned())), ("topic", None)];
        assert_eq!(with_query("/x", &some), "/x?to=an+na%26b");
        assert_eq!(with_query("/x", &[("to", None)]), "/x");
    }
}
