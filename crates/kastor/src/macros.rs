//! The macros: each collects its callsite and calls one function.
//!
//! With `--cfg kastor_off` they compile to nothing: see `__on`, through which each of those calls goes.

/// Opens a scope; it closes when the returned [`Scope`](crate::Scope) is dropped.
///
/// ```
/// # let (rows, table, path) = (3, "users", std::path::Path::new("a"));
/// # let tele = kastor::Telemetry::disabled();
/// let _scope = kastor::scope!("db.query");                                  // in the current context
/// let _scope = kastor::scope!("db.query", rows = rows, "db.table" = table); // with attributes
/// let _scope = kastor::scope!("read", path = %path.display(), kind = ?Some(1)); // printed: Display, Debug
/// let _scope = kastor::scope!(tele, "db.query");                            // in a given context
/// ```
///
/// The name is a literal of the recommended form, which is checked while the program is compiled. Keys are identifiers
/// or string literals. Attribute values are evaluated only if the scope is on, before its clock starts, and copied.
#[macro_export]
macro_rules! scope {
    ($name:literal $(,)?) => {
        $crate::__on!([$crate::__private::none()] $crate::__private::open($crate::__callsite!(scope, $name)))
    };
    ($name:literal, $($attributes:tt)+) => {
        $crate::__attributes!([open_with, is_on, $crate::__private::none()] [] scope [$name] [] $($attributes)+)
    };
    ($telemetry:expr, $name:literal $(,)?) => {
        $crate::__on!([$crate::__private::none()]
            $crate::__private::open_in(&$telemetry, $crate::__callsite!(scope, $name)))
    };
    ($telemetry:expr, $name:literal, $($attributes:tt)+) => {
        $crate::__attributes!([open_in_with, is_on_in, $crate::__private::none()] [&$telemetry,] scope [$name] [] $($attributes)+)
    };
}

/// Adds to a counter: `count!("items")`, `count!("items", 3)`, `count!("items", 3, kind = "md", host = host)`.
///
/// The series is the current scope's path, the name and the labels. Labels whose values are all literals cost nothing;
/// others are looked up. A context may stand first: `count!(tele, "items", 3)`.
#[macro_export]
macro_rules! count {
    ($name:literal $(,)?) => { $crate::__record!(Counter [] $name, 1u64,) };
    ($name:literal, $amount:expr $(, $($labels:tt)*)?) => { $crate::__record!(Counter [] $name, $amount, $($($labels)*)?) };
    ($telemetry:expr, $name:literal $(,)?) => { $crate::__record!(Counter [&$telemetry,] $name, 1u64,) };
    ($telemetry:expr, $name:literal, $amount:expr $(, $($labels:tt)*)?) => {
        $crate::__record!(Counter [&$telemetry,] $name, $amount, $($($labels)*)?)
    };
}

/// Sets a gauge: `gauge!("queue_depth", 4)`; labels and context as for [`count!`](crate::count).
#[macro_export]
macro_rules! gauge {
    ($name:literal, $amount:expr $(, $($labels:tt)*)?) => { $crate::__record!(Gauge [] $name, $amount, $($($labels)*)?) };
    ($telemetry:expr, $name:literal, $amount:expr $(, $($labels:tt)*)?) => {
        $crate::__record!(Gauge [&$telemetry,] $name, $amount, $($($labels)*)?)
    };
}

/// Adds a value to a histogram: `histogram!("size_bytes", 512)`; labels and context as for [`count!`](crate::count).
#[macro_export]
macro_rules! histogram {
    ($name:literal, $amount:expr $(, $($labels:tt)*)?) => {
        $crate::__record!(Histogram [] $name, $amount, $($($labels)*)?)
    };
    ($telemetry:expr, $name:literal, $amount:expr $(, $($labels:tt)*)?) => {
        $crate::__record!(Histogram [&$telemetry,] $name, $amount, $($($labels)*)?)
    };
}

/// Records a metric event with any value: `metric!("note", 1.5)`, `metric!("state", "ready", shard = 3)`.
///
/// It reaches every reporter as an event and is not aggregated. It reads no clock: its time is the last one that the
/// thread read.
#[macro_export]
macro_rules! metric {
    ($name:literal, $value:expr $(,)?) => { $crate::metric!(@ [event, is_event_on, ()] [] $name, $value, []) };
    ($name:literal, $value:expr, $($attributes:tt)+) => { $crate::metric!(@ [event, is_event_on, ()] [] $name, $value, [$($attributes)+]) };
    ($telemetry:expr, $name:literal, $value:expr $(,)?) => {
        $crate::metric!(@ [event_in, is_on_in, ()] [&$telemetry,] $name, $value, [])
    };
    ($telemetry:expr, $name:literal, $value:expr, $($attributes:tt)+) => {
        $crate::metric!(@ [event_in, is_on_in, ()] [&$telemetry,] $name, $value, [$($attributes)+])
    };
    (@ $call:tt [$($telemetry:tt)*] $name:literal, $value:expr, [$($attributes:tt)*]) => {
        $crate::__attributes!($call [$($telemetry)*] metric [$name, $crate::__private::Value::from($value)] []
            $($attributes)*)
    };
}

/// The call of a macro. How kastor was compiled decides, not how the crate that uses the macro was: hence two of them.
#[cfg(not(kastor_off))]
#[doc(hidden)]
#[macro_export]
macro_rules! __on {
    ([$off:expr] $call:expr) => {
        $call
    };
}

/// What is there instead of the call of a macro. The call is still seen by the compiler, so that mistakes in it are
/// found and what it uses counts as used, but nothing of it is evaluated.
#[cfg(kastor_off)]
#[doc(hidden)]
#[macro_export]
macro_rules! __on {
    ([$off:expr] $call:expr) => {
        if false { $call } else { $off }
    };
}

/// The static callsite of a literal name, and its keys.
#[doc(hidden)]
#[macro_export]
macro_rules! __callsite {
    ($kind:ident, $name:literal $(, $key:expr)*) => { $crate::__callsite!(@with_keys $kind, $name $(, $key)*).0 };
    (@with_keys $kind:ident, $name:literal $(, $key:expr)*) => {{
        const LEN: usize = <[&str]>::len(&[$($key),*]);
        static KEYS: [$crate::__private::Key; LEN] = [$($crate::__private::Key::new($key)),*];
        static CALLSITE: $crate::__private::Callsite =
            $crate::__private::Callsite::$kind(const { $crate::__private::check_literal($name) }, &KEYS);
        (&CALLSITE, &KEYS)
    }};
}

/// Chews attributes (`key = value`, `"key" = %value`, …) into keys and values, then calls one function.
#[doc(hidden)]
#[macro_export]
macro_rules! __attributes {
    ($call:tt $before:tt $kind:ident $name:tt [$($done:tt)*] $key:ident = % $value:expr $(, $($rest:tt)*)?) => {
        $crate::__attributes!($call $before $kind $name
            [$($done)* (stringify!($key), $crate::__private::Value::Display(&$value))] $($($rest)*)?)
    };
    ($call:tt $before:tt $kind:ident $name:tt [$($done:tt)*] $key:ident = ? $value:expr $(, $($rest:tt)*)?) => {
        $crate::__attributes!($call $before $kind $name
            [$($done)* (stringify!($key), $crate::__private::Value::Debug(&$value))] $($($rest)*)?)
    };
    ($call:tt $before:tt $kind:ident $name:tt [$($done:tt)*] $key:ident = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__attributes!($call $before $kind $name
            [$($done)* (stringify!($key), $crate::__private::Value::from($value))] $($($rest)*)?)
    };
    ($call:tt $before:tt $kind:ident $name:tt [$($done:tt)*] $key:literal = % $value:expr $(, $($rest:tt)*)?) => {
        $crate::__attributes!($call $before $kind $name
            [$($done)* ($key, $crate::__private::Value::Display(&$value))] $($($rest)*)?)
    };
    ($call:tt $before:tt $kind:ident $name:tt [$($done:tt)*] $key:literal = ? $value:expr $(, $($rest:tt)*)?) => {
        $crate::__attributes!($call $before $kind $name
            [$($done)* ($key, $crate::__private::Value::Debug(&$value))] $($($rest)*)?)
    };
    ($call:tt $before:tt $kind:ident $name:tt [$($done:tt)*] $key:literal = $value:expr $(, $($rest:tt)*)?) => {
        $crate::__attributes!($call $before $kind $name
            [$($done)* ($key, $crate::__private::Value::from($value))] $($($rest)*)?)
    };
    ([$call:ident, $ask:ident, $off:expr] [] $kind:ident [$name:literal $(, $more:expr)?]
        [$(($key:expr, $value:expr))*]) => {
        $crate::__on!([$off] {
            let callsite = $crate::__callsite!(@with_keys $kind, $name $(, $key)*);
            // The values are made within the call, so that temporaries in them live long enough.
            if $crate::__private::$ask(callsite.0) {
                $crate::__private::$call(callsite, $($more,)? &[$($value),*])
            } else {
                $off
            }
        })
    };
    ([$call:ident, $ask:ident, $off:expr] [$telemetry:expr,] $kind:ident [$name:literal $(, $more:expr)?]
        [$(($key:expr, $value:expr))*]) => {
        $crate::__on!([$off] match $telemetry {
            telemetry => {
                let callsite = $crate::__callsite!($kind, $name $(, $key)*);
                if $crate::__private::$ask(telemetry, callsite) {
                    $crate::__private::$call(telemetry, callsite, $($more,)? &[$($value),*])
                } else {
                    $off
                }
            }
        })
    };
}

/// Tells literal labels from others, then calls one function.
#[doc(hidden)]
#[macro_export]
macro_rules! __record {
    ($type:ident [] $name:literal, $amount:expr, $($key:ident = $label:literal),* $(,)?) => {
        $crate::__on!([()] $crate::__private::record_static($crate::__callsite!(metric, $name $(, stringify!($key))*),
            ($crate::__private::MetricType::$type, $crate::__private::Amount::from($amount)),
            || [$($crate::__private::Value::from($label)),*]))
    };
    ($type:ident [] $name:literal, $amount:expr, $($labels:tt)*) => {
        $crate::__attributes!([record_dynamic, is_on, ()] [] metric [$name, ($crate::__private::MetricType::$type,
            $crate::__private::Amount::from($amount))] [] $($labels)*)
    };
    ($type:ident [$($telemetry:tt)+] $name:literal, $amount:expr, $($labels:tt)*) => {
        $crate::__attributes!([record_in, is_on_in, ()] [$($telemetry)+] metric [$name, ($crate::__private::MetricType::$type,
            $crate::__private::Amount::from($amount))] [] $($labels)*)
    };
}
