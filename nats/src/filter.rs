//! NATS subject filters: matching as the server does it.

/// Whether `filter` (with `*` and a final `>`) matches the literal `subject`.
pub fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    let mut pattern = filter.split('.').peekable();
    while let Some(expected) = pattern.next() {
        match tokens.next() {
            Some(_) if expected == ">" && pattern.peek().is_none() => return true,
            Some(token) if expected == "*" || expected == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// Whether `subject` can be published to: no empty tokens, wildcards, spaces or control characters.
pub fn is_literal(subject: &str) -> bool {
    subject
        .split('.')
        .all(|token| !token.is_empty() && token != "*" && token != ">")
        && !subject
            .chars()
            .any(|character| character.is_whitespace() || character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_on_the_server() {
        assert!(matches("a.*.c", "a.b.c"));
        assert!(matches("a.>", "a.b.c"));
        assert!(matches("a.b", "a.b"));
        assert!(!matches("a.>", "a"));
        assert!(!matches("a.*", "a.b.c"));
        assert!(!matches("a.b.c", "a.b"));
    }
}
