//! The table behind SNMP. A SET is applied as a whole or not at all.
//!
//! The library runs one SET at a time: it tests every variable binding in order, then commits every one. Here the tests
//! collect the PDU's cells and judge them so far; the first commit judges the whole and puts it into force, and the
//! others have nothing to do. What is collected goes away with the last of the PDU's prepared bindings.
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use async_snmp::{
    BoxFuture, GetNextResult, GetResult, HandlerResult, MibHandler, Oid, PreparedSet, RequestContext, SetCommitError,
    SetCommitResult, SetTestResult, SetUndoError, SetUndoResult, Value, VarBind,
};
use branchline_station_role::router::mib::MibValue;

use super::{
    Saver,
    forward::{ForwardError, Forwarder},
    table::{Cell, Rows, Rules, SavedRow, Verdict, mappings, split, to_save, view},
};
use crate::router::snmp::{from_wire, to_wire};

/// natAddrMapTable and natAddrBindTable.
pub(super) struct NatHandler {
    rules: Rules,
    saver: Saver,
    shared: Mutex<Shared>,
    forwarder: tokio::sync::Mutex<Forwarder>,
    /// For the prepared bindings, which outlive the borrow of the handler.
    itself: Weak<Self>,
}

struct Shared {
    rows: Rows,
    view: BTreeMap<Vec<u32>, MibValue>,
    set: CurrentSet,
}

/// The SET under way.
#[derive(Default)]
struct CurrentSet {
    cells: Vec<Cell>,
    prepared: usize,
    is_committed: bool,
    /// The rows before the commit.
    before: Option<Rows>,
}

impl NatHandler {
    pub(super) async fn start(
        rules: Rules,
        ports: Vec<u16>,
        saver: Saver,
        saved: Vec<SavedRow>,
    ) -> Result<Arc<Self>, ForwardError> {
        let rows: Rows = saved.into_iter().map(|saved| (saved.key, saved.columns.into_iter().collect())).collect();
        let mut forwarder = Forwarder::new(ports);
        forwarder.set(&mappings(&rows)).await?;
        if let Err(error) = saver.save(to_save(&rows)) {
            tracing::warn!(%error, "the demo router's state cannot be saved; its engine's boots will not grow");
        }
        Ok(Arc::new_cyclic(|itself| Self {
            rules,
            saver,
            shared: Mutex::new(Shared { view: view(&rows), rows, set: CurrentSet::default() }),
            forwarder: tokio::sync::Mutex::new(forwarder),
            itself: itself.clone(),
        }))
    }

    pub(super) fn mappings(&self) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        mappings(&self.shared().rows).into_iter().collect()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Every change is made whole while the lock is held, so a panic elsewhere leaves nothing half done.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn test(&self, object: &[u32], value: &Value) -> SetTestResult {
        let cell = self.rules.cell(object, from_wire(value))?;
        let mut shared = self.shared();
        shared.set.cells.push(cell);
        match self.rules.judge(&shared.rows, &shared.set.cells) {
            Ok(_) => {
                shared.set.prepared += 1;
                Ok(Box::new(PreparedCell { handler: self.itself.clone() }))
            }
            Err(error) => {
                shared.set.cells.pop();
                Err(error)
            }
        }
    }

    /// Puts the whole SET into force; once for all its variable bindings.
    async fn commit(&self) -> Result<(), SetCommitError> {
        let (before, after) = {
            let mut shared = self.shared();
            if shared.set.is_committed {
                return Ok(());
            }
            let Ok(Verdict::Good(after)) = self.rules.judge(&shared.rows, &shared.set.cells) else {
                return Err(SetCommitError::Failed);
            };
            shared.set.is_committed = true;
            let before = std::mem::replace(&mut shared.rows, after.clone());
            shared.set.before = Some(before.clone());
            shared.view = view(&after);
            (before, after)
        };
        self.enforce(&before, &after).await.map_err(|error| {
            tracing::warn!(error, "the demo router could not put a change into force");
            SetCommitError::Failed
        })
    }

    async fn undo(&self) -> Result<(), SetUndoError> {
        let (before, after) = {
            let mut shared = self.shared();
            let Some(before) = shared.set.before.take() else { return Ok(()) };
            let after = std::mem::replace(&mut shared.rows, before.clone());
            shared.view = view(&before);
            (before, after)
        };
        self.enforce(&after, &before).await.map_err(|_| SetUndoError::Failed)
    }

    async fn enforce(&self, old: &Rows, new: &Rows) -> Result<(), String> {
        let wanted = mappings(new);
        if mappings(old) != wanted {
            self.forwarder.lock().await.set(&wanted).await.map_err(|error| error.to_string())?;
        }
        self.saver.save(to_save(new)).map_err(|error| error.to_string())
    }

    fn get_value(&self, object: &[u32]) -> GetResult {
        match self.shared().view.get(object) {
            Some(value) => GetResult::Value(to_wire(value)),
            None if split(object).is_some_and(|(column, _)| (2..=21).contains(&column)) => GetResult::NoSuchInstance,
            None => GetResult::NoSuchObject,
        }
    }

    fn get_next_value(&self, object: &[u32]) -> GetNextResult {
        let shared = self.shared();
        let range = (Bound::Excluded(object.to_vec()), Bound::Unbounded);
        match shared.view.range::<Vec<u32>, _>(range).next() {
            Some((next, value)) => GetNextResult::Value(VarBind::new(Oid::from_slice(next), to_wire(value))),
            None => GetNextResult::EndOfMibView,
        }
    }
}

impl MibHandler for NatHandler {
    fn get<'a>(&'a self, _: &'a RequestContext, object: &'a Oid) -> BoxFuture<'a, HandlerResult<GetResult>> {
        Box::pin(async move { Ok(self.get_value(object.arcs())) })
    }

    fn get_next<'a>(&'a self, _: &'a RequestContext, object: &'a Oid) -> BoxFuture<'a, HandlerResult<GetNextResult>> {
        Box::pin(async move { Ok(self.get_next_value(object.arcs())) })
    }

    fn test_set<'a>(
        &'a self,
        _: &'a RequestContext,
        object: &'a Oid,
        value: &'a Value,
    ) -> BoxFuture<'a, SetTestResult> {
        Box::pin(async move { self.test(object.arcs(), value) })
    }
}

/// One variable binding of the SET under way.
struct PreparedCell {
    handler: Weak<NatHandler>,
}

impl PreparedSet for PreparedCell {
    fn commit<'a>(&'a mut self, _: &'a RequestContext, _: &'a Oid, _: &'a Value) -> BoxFuture<'a, SetCommitResult> {
        let handler = self.handler.upgrade();
        Box::pin(async move {
            match handler {
                Some(handler) => handler.commit().await,
                None => Err(SetCommitError::Failed),
            }
        })
    }

    fn undo<'a>(&'a mut self, _: &'a RequestContext, _: &'a Oid, _: &'a Value) -> BoxFuture<'a, SetUndoResult> {
        let handler = self.handler.upgrade();
        Box::pin(async move {
            match handler {
                Some(handler) => handler.undo().await,
                None => Err(SetUndoError::Failed),
            }
        })
    }
}

impl Drop for PreparedCell {
    fn drop(&mut self) {
        let Some(handler) = self.handler.upgrade() else { return };
        let mut shared = handler.shared();
        shared.set.prepared = shared.set.prepared.saturating_sub(1);
        if shared.set.prepared == 0 {
            shared.set = CurrentSet::default();
        }
    }
}
