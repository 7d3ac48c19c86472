//! Pages and their cursors.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use uuid::Uuid;

use super::{PAGE_DEFAULT, PAGE_MAX, QueryError};

/// Which list a cursor is of: one of another list is refused instead of misread.
pub(super) const SWARMS: u8 = b's';
pub(super) const AGENTS: u8 = b'a';
pub(super) const TASKS: u8 = b't';
pub(super) const EVENTS: u8 = b'e';
pub(super) const QUESTIONS: u8 = b'q';
pub(super) const TOPOLOGIES: u8 = b'o';

/// The place of a row in a list, opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    list: u8,
    sequence: i64,
    /// Tells apart what one event made; nil in lists in which each row has an event of its own.
    id: Uuid,
}
impl Cursor {
    fn text(self) -> String {
        let mut bytes = vec![self.list];
        bytes.extend(self.sequence.to_be_bytes());
        if !self.id.is_nil() {
            bytes.extend(self.id.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }
    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (list, rest) = bytes.split_first()?;
        let (sequence, id) = rest.split_first_chunk()?;
        let id = match id {
            [] => Uuid::nil(),
            id => Uuid::from_slice(id).ok()?,
        };
        Some(Self {
            list: *list,
            sequence: i64::from_be_bytes(*sequence),
            id,
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
        let (limit, sequence, _) = self.checked_pair(list)?;
        Ok((limit, sequence))
    }
    /// Limit, and sequence and id of the last row of the page before.
    pub(super) fn checked_pair(&self, list: u8) -> Result<(i64, i64, Uuid), QueryError> {
        let limit = self.limit.unwrap_or(PAGE_DEFAULT);
        if limit == 0 || limit > PAGE_MAX {
            return Err(QueryError::Limit(limit));
        }
        let (sequence, id) = match &self.cursor {
            None => (-1, Uuid::nil()),
            Some(text) => match Cursor::parse(text) {
                Some(cursor) if cursor.list == list => (cursor.sequence, cursor.id),
                _ => return Err(QueryError::Cursor),
            },
        };
        Ok((i64::from(limit), sequence, id))
    }
    /// The same of a list whose rows one event makes by number, from 0.
    pub(super) fn checked_numbers(&self, list: u8) -> Result<(i64, i64, i32), QueryError> {
        let (limit, sequence, id) = self.checked_pair(list)?;
        let number = i32::try_from(id.as_u128()).map_err(|_| QueryError::Cursor)?;
        Ok((limit, sequence, number))
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
    pub(super) fn of(rows: Vec<T>, limit: i64, list: u8, place: impl Fn(&T) -> i64) -> Self {
        Self::of_pairs(rows, limit, list, |row| (place(row), Uuid::nil()))
    }
    /// The same for a list in the order of a sequence and a number from 0.
    pub(super) fn of_numbers(
        rows: Vec<T>,
        limit: i64,
        list: u8,
        place: impl Fn(&T) -> (i64, i32),
    ) -> Self {
        Self::of_pairs(rows, limit, list, |row| {
            let (sequence, number) = place(row);
            let number = u128::try_from(number).unwrap_or(0);
            (sequence, Uuid::from_u128(number))
        })
    }
    /// The same for a list in the order of a sequence and an id.
    pub(super) fn of_pairs(
        mut rows: Vec<T>,
        limit: i64,
        list: u8,
        place: impl Fn(&T) -> (i64, Uuid),
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| more);
        let next_cursor = last.map(|row| {
            let (sequence, id) = place(row);
            Cursor { list, sequence, id }.text()
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
    fn a_cursor_tells_rows_of_one_event_apart() {
        let (first, second) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let page = Page::of_pairs(vec![first, second], 1, AGENTS, |id| (3, *id));
        let next = page.next_cursor.as_deref();
        assert!(matches!(
            request(None, next).checked_pair(AGENTS),
            Ok((100, 3, id)) if id == first
        ));
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
        // Behind the sequence is an id or nothing.
        let long = format!("{}AAAA", next.unwrap_or_default());
        for wrong in ["", "x", "AAAA", "not base64!", &long] {
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
