//! Pages and their cursors.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use super::{PAGE_DEFAULT, PAGE_MAX, QueryError};

/// Which list a cursor is of: one of another list is refused instead of misread.
pub(super) const SWARMS: u8 = b's';
pub(super) const AGENTS: u8 = b'a';
pub(super) const TASKS: u8 = b't';
pub(super) const EVENTS: u8 = b'e';

/// The place of a row in a list, opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    list: u8,
    sequence: i64,
}
impl Cursor {
    fn text(self) -> String {
        let mut bytes = [self.list; 9];
        bytes[1..].copy_from_slice(&self.sequence.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }
    fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 9] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (list, sequence) = (bytes[0], bytes[1..].try_into().ok()?);
        Some(Self {
            list,
            sequence: i64::from_be_bytes(sequence),
        })
    }
}

/// What a client asks for: `?limit=&cursor=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Rows at the most, 1 to [`PAGE_MAX`]; [`PAGE_DEFAULT`] if absent.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before; the first page if absent.
    pub cursor: Option<String>,
}
impl PageRequest {
    /// Limit and last sequence of the page before.
    pub(super) fn checked(&self, list: u8) -> Result<(i64, i64), QueryError> {
        let limit = self.limit.unwrap_or(PAGE_DEFAULT);
        if limit == 0 || limit > PAGE_MAX {
            return Err(QueryError::Limit(limit));
        }
        let after = match &self.cursor {
            None => -1,
            Some(text) => match Cursor::parse(text) {
                Some(cursor) if cursor.list == list => cursor.sequence,
                _ => return Err(QueryError::Cursor),
            },
        };
        Ok((i64::from(limit), after))
    }
}

/// A page of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; `null` on the last one.
    pub next_cursor: Option<String>,
}
impl<T> Page<T> {
    /// `rows` is one longer than `limit` if there is more.
    pub(super) fn of(mut rows: Vec<T>, limit: i64, list: u8, place: impl Fn(&T) -> i64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| more);
        let next_cursor = last.map(|row| {
            Cursor {
                list,
                sequence: place(row),
            }
            .text()
        });
        Self {
            items: rows,
            next_cursor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(limit: Option<u32>, cursor: Option<&str>) -> PageRequest {
        PageRequest {
            limit,
            cursor: cursor.map(str::to_owned),
        }
    }

    #[test]
    fn the_limit_is_taken_at_its_ends_and_refused_beyond() {
        assert!(matches!(
            request(Some(PAGE_MAX), None).checked(TASKS),
            Ok((1_000, -1))
        ));
        assert!(matches!(request(Some(1), None).checked(TASKS), Ok((1, -1))));
        assert!(matches!(
            request(Some(PAGE_MAX + 1), None).checked(TASKS),
            Err(QueryError::Limit(1_001))
        ));
        assert!(matches!(
            request(Some(0), None).checked(TASKS),
            Err(QueryError::Limit(0))
        ));
        assert!(matches!(request(None, None).checked(TASKS), Ok((100, -1))));
    }

    #[test]
    fn a_cursor_leads_on_in_its_own_list_only() {
        let page = Page::of(vec![3, 5, 9], 2, TASKS, |row| *row);
        assert_eq!(page.items, [3, 5]);
        let next = page.next_cursor.as_deref();
        assert!(matches!(request(Some(2), next).checked(TASKS), Ok((2, 5))));
        assert!(matches!(
            request(Some(2), next).checked(AGENTS),
            Err(QueryError::Cursor)
        ));
        for wrong in ["", "x", "AAAA", "not base64!"] {
            assert!(
                matches!(
                    request(None, Some(wrong)).checked(TASKS),
                    Err(QueryError::Cursor)
                ),
                "{wrong}"
            );
        }
        assert_eq!(
            Page::of(vec![3, 5], 2, TASKS, |row: &i64| *row).next_cursor,
            None
        );
    }
}
