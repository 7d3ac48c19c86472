//! Query parameters and ids in paths.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use axum::{
    extract::Query,
    http::{StatusCode, Uri},
};
use swarm_events::Problem;
use swarm_projections::queries::{PAGE_DEFAULT, PAGE_MAX, PageRequest};

use crate::problem::{Answer, ApiProblem};

/// The parameters of a request, taken one by one; what is left over is a mistake of the caller.
#[derive(Debug)]
pub struct Params(BTreeMap<String, String>);

fn wrong(name: &str, detail: impl Into<String>, cure: &str) -> ApiProblem {
    ApiProblem::new(
        StatusCode::BAD_REQUEST,
        Problem::new("bad-parameter", detail)
            .field(format!("?{name}"))
            .cure(cure),
    )
}

impl Params {
    /// The parameters of `uri`.
    ///
    /// # Errors
    /// 400 if they cannot be read.
    pub fn of(uri: &Uri) -> Answer<Self> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
            wrong(
                "",
                error.body_text(),
                "encode the parameters as key=value&…",
            )
        })?;
        Ok(Self(pairs.into_iter().collect()))
    }
    /// The parameter `name` as text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }
    /// The parameter `name` as a number or another value with a text form.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn value<T: FromStr>(&mut self, name: &str, cure: &str) -> Answer<Option<T>> {
        self.0
            .remove(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| wrong(name, format!("{text} will not do"), cure))
            })
            .transpose()
    }
    /// The parameter `name` as a number from `low` to `high`.
    ///
    /// # Errors
    /// 400 if it is none.
    pub fn within<T>(&mut self, name: &str, low: T, high: T) -> Answer<Option<T>>
    where
        T: FromStr + PartialOrd + Display,
    {
        let cure = format!("give a number from {low} to {high}");
        let value = self.value::<T>(name, &cure)?;
        match value {
            Some(value) if value < low || value > high => {
                let detail = format!("{value} is outside {low} to {high}");
                Err(wrong(name, detail, &cure))
            }
            value => Ok(value),
        }
    }
    /// The parameter `name` as true or false; false if it is absent.
    ///
    /// # Errors
    /// 400 if it is neither.
    pub fn flag(&mut self, name: &str) -> Answer<bool> {
        let flag = self.value(name, "give true or false")?;
        Ok(flag.unwrap_or(false))
    }
    /// The parameter `name` as one of these words.
    ///
    /// # Errors
    /// 400 naming them.
    pub fn one_of(&mut self, name: &str, words: &[&str]) -> Answer<Option<String>> {
        let Some(text) = self.0.remove(name) else {
            return Ok(None);
        };
        if words.contains(&text.as_str()) {
            return Ok(Some(text));
        }
        let cure = format!("give one of {}", words.join(", "));
        Err(wrong(name, format!("there is no {name} {text:?}"), &cure))
    }
    /// `?min_seq=`: the read must reflect the log up to there.
    ///
    /// # Errors
    /// 400 if it is no number.
    pub fn min_seq(&mut self) -> Answer<Option<u64>> {
        self.value(
            "min_seq",
            "give a stream sequence, as in the header swarm-seq of a write",
        )
    }
    /// `?min_seq=` of a request that takes no other parameter.
    ///
    /// # Errors
    /// 400 if it is no number, or if there is another one.
    pub fn only_min_seq(uri: &Uri) -> Answer<Option<u64>> {
        let mut params = Self::of(uri)?;
        let min_seq = params.min_seq()?;
        params.done()?;
        Ok(min_seq)
    }
    /// `?limit=`
    ///
    /// # Errors
    /// 400 if it is no number from 1 to [`PAGE_MAX`].
    pub fn limit(&mut self) -> Answer<u32> {
        let cure = "give a number from 1 to 1000";
        let limit = self.value("limit", cure)?.unwrap_or(PAGE_DEFAULT);
        if (1..=PAGE_MAX).contains(&limit) {
            Ok(limit)
        } else {
            Err(wrong(
                "limit",
                format!("{limit} is outside 1 to {PAGE_MAX}"),
                cure,
            ))
        }
    }
    /// `?limit=&cursor=`
    ///
    /// # Errors
    /// 400 if the limit is no number from 1 to [`PAGE_MAX`]. A cursor of another list is refused by the read.
    pub fn page(&mut self) -> Answer<PageRequest> {
        Ok(PageRequest {
            limit: Some(self.limit()?),
            cursor: self.text("cursor"),
        })
    }
    /// Nothing may be left.
    ///
    /// # Errors
    /// 400 naming a parameter that does not exist here.
    pub fn done(self) -> Answer<()> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(wrong(
                &name,
                format!("there is no parameter {name} here"),
                "leave it out; see /openapi.json for those that there are",
            )),
        }
    }
}

/// An id in a path. What is no UUID names nothing, so it is 404 as well.
///
/// # Errors
/// 404 naming what was looked for.
pub fn id<T: FromStr>(what: &str, text: &str) -> Answer<T>
where
    T::Err: Display,
{
    text.parse().map_err(|_| {
        ApiProblem::new(
            StatusCode::NOT_FOUND,
            Problem::new(
                &format!("unknown-{what}"),
                format!("{text:?} is no id: ids are UUIDs in lower case with hyphens"),
            )
            .field("id")
            .cure(format!("list what there is, and use the {what}'s id")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().expect("a URI")).expect("parameters")
    }

    #[test]
    fn limits_hold_at_the_limit() {
        assert_eq!(params("").limit().expect("default"), PAGE_DEFAULT);
        assert_eq!(params("limit=1").limit().expect("lowest"), 1);
        assert_eq!(params("limit=1000").limit().expect("highest"), PAGE_MAX);
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit="] {
            let problem = params(query).limit().expect_err(query);
            assert_eq!(
                (problem.status.as_u16(), problem.problem.field.as_deref()),
                (400, Some("?limit")),
                "{query}"
            );
            assert_eq!(
                problem.problem.cure.as_deref(),
                Some("give a number from 1 to 1000")
            );
        }
    }

    #[test]
    fn a_number_is_within_its_range_and_a_flag_is_true_or_false() {
        let within = |query| params(query).within("lines", 0, 10);
        assert_eq!(within("").expect("none"), None);
        assert_eq!(within("lines=0").expect("lowest"), Some(0));
        assert_eq!(within("lines=10").expect("highest"), Some(10));
        for query in ["lines=11", "lines=-1", "lines=x", "lines="] {
            let problem = within(query).expect_err(query).problem.clone();
            assert_eq!(problem.field.as_deref(), Some("?lines"));
            assert_eq!(problem.cure.as_deref(), Some("give a number from 0 to 10"));
        }
        let flag = |query| params(query).flag("force");
        assert!(!flag("").expect("absent") && flag("force=true").expect("true"));
        assert_eq!(
            flag("force=yes")
                .expect_err("a word")
                .problem
                .field
                .as_deref(),
            Some("?force")
        );
    }

    #[test]
    fn a_word_is_one_of_those_that_there_are() {
        let words = ["idle", "busy"];
        let one_of = |query| params(query).one_of("status", &words);
        assert_eq!(one_of("").expect("none"), None);
        assert_eq!(
            one_of("status=busy").expect("known").as_deref(),
            Some("busy")
        );
        for query in ["status=", "status=Busy", "status=gone"] {
            let problem = one_of(query).expect_err(query).problem.clone();
            assert_eq!(problem.field.as_deref(), Some("?status"));
            assert_eq!(problem.cure.as_deref(), Some("give one of idle, busy"));
        }
    }

    #[test]
    fn a_mistyped_parameter_is_not_passed_over() {
        let mut some = params("limit=5&limt=7");
        assert_eq!(some.limit().expect("5"), 5);
        assert_eq!(
            some.done()
                .expect_err("one too many")
                .problem
                .field
                .as_deref(),
            Some("?limt")
        );
    }
}
