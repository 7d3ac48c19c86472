//! `connection.json` as it stands, and who died how often.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::DataDir;
use crate::connection::ConnectionFile;

/// What the tasks that keep processes running share: `connection.json`, and who died how often.
pub struct Shared {
    data: DataDir,
    state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    /// `connection.json`.
    pub connection: ConnectionFile,
    deaths: BTreeMap<String, u32>,
    /// Written at every change from here on: before, the file of the last run stays as it is.
    pub published: bool,
}

impl Shared {
    /// Nothing runs yet.
    pub fn new(data: DataDir) -> Self {
        Self {
            data,
            state: Mutex::default(),
        }
    }
    /// Changes what is known, and writes it down once it is published.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if state.published
            && let Err(error) = state.connection.write(self.data.path())
        {
            tracing::error!("{error:#}");
        }
    }
    /// `name` runs as `pid`.
    pub fn started(&self, name: &str, pid: u32) {
        self.change(|state| {
            state.connection.pids.insert(name.to_owned(), pid);
        });
    }
    /// `name` has ended without being told to.
    pub fn died(&self, name: &str) {
        self.change(|state| {
            state.connection.pids.remove(name);
            *state.deaths.entry(name.to_owned()).or_default() += 1;
        });
    }
    /// `name` has ended as it was told to.
    pub fn ended(&self, name: &str) {
        self.change(|state| {
            state.connection.pids.remove(name);
        });
    }
    /// How often `name` has ended without being told to.
    pub fn deaths(&self, name: &str) -> u32 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.deaths.get(name).copied().unwrap_or(0)
    }
    /// `connection.json` as it stands.
    pub fn connection(&self) -> ConnectionFile {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .connection
            .clone()
    }
}
