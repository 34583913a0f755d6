//! Work on several threads at a time.

/// Does all of this, each on a thread of its own as far as there are threads to be had.
pub(super) fn in_parallel<const N: usize>(work: [Box<dyn FnOnce() + Send + '_>; N]) {
    std::thread::scope(|scope| {
        let mut last = None;
        for task in work {
            if let Some(task) = last.replace(task) {
                // What finds no thread is done here. The task is lost with the error, so it waits in a cell.
                let cell = std::sync::Arc::new(parking_lot::Mutex::new(Some(task)));
                let own = std::sync::Arc::clone(&cell);
                let spawned = std::thread::Builder::new().spawn_scoped(scope, move || {
                    let task = own.lock().take();
                    task.into_iter().for_each(|task| task());
                });
                if spawned.is_err() {
                    let task = cell.lock().take();
                    task.into_iter().for_each(|task| task());
                }
            }
        }
        last.into_iter().for_each(|task| task());
    });
}
