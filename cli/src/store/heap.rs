//! Who holds the memory of this process, asked of jemalloc: once sampling is on, it notes the stack of
//! one allocation in every 512 KiB. Until then it costs nothing.

use jemalloc_pprof::PROF_CTL;
use pintle_store::Held;

/// Read by jemalloc before anything else runs: sampling can be turned on later only if it was prepared
/// then.
#[expect(unsafe_code, reason = "jemalloc finds its options by this name")]
#[unsafe(export_name = "malloc_conf")]
pub(crate) static MALLOC_CONF: &[u8; 46] = b"prof:true,prof_active:false,lg_prof_sample:19\0";

/// From now on. What was allocated before is not told.
pub(super) async fn start_sampling() {
    jemalloc_pprof::activate_jemalloc_profiling().await;
}

/// What is allocated, by who allocated it. Writes a temporary file meanwhile.
pub(super) fn held() -> Result<Vec<Held>, String> {
    let control = PROF_CTL.as_ref().ok_or("jemalloc was started without prof:true")?;
    let dump = control.blocking_lock().dump_profile();
    let stacks = dump.map_err(|error| format!("{error:#}"))?.stacks.into_iter();
    let held = stacks.map(|(dumped, _)| {
        let mut stack = dumped.addrs;
        // They begin with the start of the thread.
        stack.reverse();
        Held { stack, bytes: dumped.weight as i64 }
    });
    Ok(held.collect())
}
