//! `traceparent`: what is taken is written again as what was meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wavegate_engine::domain::ids::TraceContext;

fuzz_target!(|text: &str| {
    if let Ok(context) = text.parse::<TraceContext>() {
        let written = context.traceparent();
        assert_eq!(written.parse(), Ok(context));
        // A later version is written down as ours; the ids are the caller's.
        assert_eq!(written[2..52], text[2..52]);
    }
});
