//! Shows the store's log while another process keeps it from being folded into the file.

use lockgate_store::Store;

use crate::limits::STATUS_INTERVAL;
use crate::status::{Board, StoreLogStatus};

/// Keeps the board current for as long as it is polled. The store logs when it begins and ends.
pub(crate) async fn show(store: Store, board: Board) {
    let mut ticks = tokio::time::interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let pinned = store.pinned_log();
        board.store_log(pinned.map(|log| StoreLogStatus {
            bytes: log.bytes,
            since: log.since,
        }));
    }
}
