//! `metric`, `count`, `gauge`, `histogram` as methods of the context.
//!
//! An instrument's usual call finds its place by the addresses of its name and of the call site's keyword names; the core
//! remembers there which series was used last, so that a call is a few comparisons and an addition.

use std::ptr;

use kastor::{
    Carrier, MetricType,
    raw::{self, Amount, Instrument, Name, Under},
};
use pyo3::ffi::{self, PyObject};

use super::{
    cell::{Cell, carrier_of, flag, origin_of},
    context::Context,
    deliver,
    keys::{self, Keys, Kind, Shared},
    names,
    object::{Owned, call_arguments, clear, items, lossy_text, new_ref, new_text, none, utf8},
    scope, stack, texts, value,
};

/// `metric(name, value, **metadata)`: an event for everyone.
pub(crate) unsafe extern "C" fn metric(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the protocol of fast calls.
    unsafe { general(object.cast(), call_arguments(args, nargs as usize, keys), keys, None) }
}

/// `count(name, increment=1, **labels)`.
pub(crate) unsafe extern "C" fn count(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the protocol of fast calls.
    unsafe { instrument(object.cast(), call_arguments(args, nargs as usize, keys), keys, MetricType::Counter) }
}

/// `gauge(name, value, **labels)`.
pub(crate) unsafe extern "C" fn gauge(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the protocol of fast calls.
    unsafe { instrument(object.cast(), call_arguments(args, nargs as usize, keys), keys, MetricType::Gauge) }
}

/// `histogram(name, value, **labels)`.
pub(crate) unsafe extern "C" fn histogram(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    keys: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the protocol of fast calls.
    unsafe { instrument(object.cast(), call_arguments(args, nargs as usize, keys), keys, MetricType::Histogram) }
}

/// The scope that a metric is recorded under, and what keeps it.
struct Place {
    value: *mut Cell,
    origin: *mut Cell,
    under: Under,
}

impl Place {
    #[inline(always)]
    unsafe fn here() -> Self {
        let mut under = Under { path: None, levels: 0, ids: None, carrier: Carrier::NONE };
        // SAFETY: the thread is attached; `value` is held until the place is left.
        unsafe {
            let value = stack::value();
            let top = stack::top_of(value);
            let mut origin = ptr::null_mut();
            if !top.is_null() {
                origin = origin_of(top);
                let scope = &*origin;
                under.levels = scope.levels();
                under.path = scope.has_path().then(|| scope.path());
                if scope.has(flag::FOREIGN | flag::ANCHOR) {
                    under.carrier = carrier_of(origin);
                } else {
                    under.ids = Some(scope.ids());
                }
            }
            Self { value, origin, under }
        }
    }
}

impl Drop for Place {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: this owns the reference.
        unsafe { clear(&mut self.value) };
    }
}

/// The usual call of an instrument, or the way to the general one.
#[inline(always)]
unsafe fn instrument(
    context: *mut Context,
    (given, named): (&[*mut PyObject], &[*mut PyObject]),
    keys: *mut PyObject,
    metric_type: MetricType,
) -> *mut PyObject {
    // SAFETY: the callers' protocols keep everything alive meanwhile.
    unsafe {
        let amount = match *given {
            [_, object] => value::amount(object),
            [_] if metric_type == MetricType::Counter => Some(Amount::Unsigned(1)),
            _ => None,
        };
        if let (Some(amount), [name, ..], true) = (amount, given, (*context).reporters.is_empty()) {
            if let Some(site) = sites::find(*name, keys, metric_type).filter(|site| site.serves(context)) {
                let place = Place::here();
                let captures = (*context).captures_repr;
                let labels = (!named.is_empty()).then_some(|attributes: &mut raw::Attributes<'_>| {
                    for (name, object) in site.keys.iter().flat_map(|keys| &keys.names).zip(named) {
                        value::with(*object, captures, |value| attributes.set(*name, value));
                    }
                });
                raw::add(&(*context).telemetry, &site.instrument, &place.under, amount, labels);
                return none();
            }
        }
        general(context, (given, named), keys, Some(metric_type))
    }
}

/// Any call: with keywords for the parameters, values that are no numbers, Python reporters.
#[inline(never)]
unsafe fn general(
    context: *mut Context,
    (given, named): (&[*mut PyObject], &[*mut PyObject]),
    keys: *mut PyObject,
    metric_type: Option<MetricType>,
) -> *mut PyObject {
    // SAFETY: the callers' protocols keep everything alive meanwhile.
    unsafe {
        let second = if metric_type == Some(MetricType::Counter) { "increment" } else { "value" };
        let mut call = Call { name: given.first().copied(), value: given.get(1).copied(), keys: Vec::new() };
        let (mut own_name, mut own_value) = (given.is_empty(), given.len() < 2);
        let mut values = Vec::with_capacity(named.len());
        let mut is_plain = true;
        for (key, object) in items(keys).iter().zip(named) {
            let text = utf8(*key);
            if own_name && text == Some("name") {
                (call.name, own_name, is_plain) = (Some(*object), false, false);
            } else if own_value && text == Some(second) {
                (call.value, own_value, is_plain) = (Some(*object), false, false);
            } else {
                call.keys.push(*key);
                values.push(*object);
            }
        }
        if given.len() > 2 || call.name.is_none() || call.value.is_none() && second == "value" {
            let message = if second == "value" {
                c"a metric takes its name and its value, and metadata as keyword arguments"
            } else {
                c"a counter takes its name and an increment, and labels as keyword arguments"
            };
            ffi::PyErr_SetString(ffi::PyExc_TypeError, message.as_ptr());
            return ptr::null_mut();
        }
        let rest = if is_plain {
            Owned::share(keys)
        } else {
            keys::tuple(call.keys.iter().filter_map(|key| Owned::share(*key)).collect())
        };
        let keys = rest.as_ref().map_or(ptr::null_mut(), Owned::as_ptr);
        let keys = if items(keys).is_empty() { ptr::null_mut() } else { keys };
        let name = call.name.unwrap_or(ptr::null_mut());
        match call.value {
            Some(value) => record(context, name, value, keys, &values, metric_type),
            None => {
                let mut one = ffi::PyLong_FromLong(1);
                if one.is_null() {
                    return one;
                }
                let answer = record(context, name, one, keys, &values, metric_type);
                clear(&mut one);
                answer
            }
        }
    }
}

/// The parts of a call.
struct Call {
    name: Option<*mut PyObject>,
    value: Option<*mut PyObject>,
    keys: Vec<*mut PyObject>,
}

unsafe fn record(
    context: *mut Context,
    name: *mut PyObject,
    object: *mut PyObject,
    keys: *mut PyObject,
    values: &[*mut PyObject],
    metric_type: Option<MetricType>,
) -> *mut PyObject {
    // SAFETY: everything is alive meanwhile; the caller of the method holds the context.
    unsafe {
        let known = names::find(name).filter(|known| known.is_recommended || !(*context).is_strict);
        let Some(known) = known else { return scope::refuse_name(name, "metric") };
        let context = &*context;
        let kind = if metric_type.is_some() { Kind::Typed } else { Kind::Metric };
        let Some(merged) = keys::find(keys, kind) else { return none() };
        let place = Place::here();
        let attach = |attributes: &mut raw::Attributes<'_>| {
            for (name, object) in merged.names.iter().zip(values) {
                value::with(*object, context.captures_repr, |value| attributes.set(*name, value));
            }
        };
        let is_on = match (metric_type, value::amount(object)) {
            (Some(metric_type), Some(amount)) => {
                let instrument = sites::instrument(known.name, metric_type);
                let labels = (!values.is_empty()).then_some(attach);
                raw::add(&context.telemetry, &instrument, &place.under, amount, labels);
                context.telemetry.is_enabled()
            }
            (None, Some(amount)) => {
                let value = match amount {
                    Amount::Unsigned(number) => kastor::Value::U64(number),
                    Amount::Signed(number) => kastor::Value::I64(number),
                    Amount::Float(number) => kastor::Value::F64(number),
                };
                let value =
                    if ffi::PyBool_Check(object) != 0 { kastor::Value::Bool(object == ffi::Py_True()) } else { value };
                raw::event(&context.telemetry, known.name, &place.under, value, attach)
            }
            // What is no number is an event, whatever the method.
            (_, None) => value::with(object, context.captures_repr, |value| {
                raw::event(&context.telemetry, known.name, &place.under, *value, attach)
            }),
        };
        if !is_on || !context.takes_metrics {
            return none();
        }
        let interned = raw::path(place.under.path, known.name);
        let is_cut = known.is_cut || raw::is_shared(interned);
        let is_cut = is_cut || !place.origin.is_null() && (*place.origin).has(flag::CUT);
        let metric = deliver::Metric {
            path: if is_cut { whole_path(place.origin, name) } else { texts::of_path(interned) },
            interned,
            value: object,
            depth: place.under.levels,
            parent: parent_text(place.origin),
            metric_type,
            keys,
            values,
        };
        if deliver::metric(context, metric) { none() } else { ptr::null_mut() }
    }
}

unsafe fn parent_text(origin: *mut Cell) -> *mut PyObject {
    // SAFETY: the place keeps it.
    unsafe { if origin.is_null() || !(*origin).has_path() { none() } else { texts::of_scope(origin) } }
}

#[cold]
unsafe fn whole_path(origin: *mut Cell, name: *mut PyObject) -> *mut PyObject {
    // SAFETY: the place keeps the scope; the name is a `str`.
    unsafe {
        if origin.is_null() || !(*origin).has_path() {
            return new_ref(name);
        }
        let mut parent = texts::of_scope(origin);
        if parent.is_null() {
            return parent;
        }
        let text = format!("{}.{}", lossy_text(parent), lossy_text(name));
        clear(&mut parent);
        new_text(&text)
    }
}

/// A call site of an instrument.
struct Site {
    instrument: Instrument,
    is_recommended: bool,
    keys: Option<Shared<Keys>>,
}

impl Site {
    #[inline(always)]
    unsafe fn serves(&self, context: *mut Context) -> bool {
        // SAFETY: alive, as for every caller.
        self.is_recommended || unsafe { !(*context).is_strict }
    }
}

/// Call sites by the addresses of name and keyword names, and instruments by name: both bounded.
mod sites {
    use std::{
        collections::HashMap,
        sync::{Mutex, PoisonError},
    };

    use super::{Instrument, Keys, MetricType, Name, PyObject, Shared, Site, keys, names};
    use crate::hot::keys::Kind;

    /// Instruments that remember their series; further ones look it up each time.
    const MAX_INSTRUMENTS: usize = 1 << 12;

    static INSTRUMENTS: Mutex<Option<HashMap<(Name, MetricType), Instrument>>> = Mutex::new(None);

    /// The instrument of a name.
    pub(super) fn instrument(name: Name, metric_type: MetricType) -> Instrument {
        let mut known = INSTRUMENTS.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if let Some(instrument) = known.get(&(name, metric_type)) {
            return *instrument;
        }
        if known.len() >= MAX_INSTRUMENTS {
            return Instrument::forgetful(name, metric_type);
        }
        *known.entry((name, metric_type)).or_insert_with(|| Instrument::new(name, metric_type))
    }

    /// What a call site is; none if the name is no good, or not one object each time.
    ///
    /// # Safety
    /// `name` is alive, and `keys` null or the keyword names of a call.
    #[inline(always)]
    pub(super) unsafe fn find(name: *mut PyObject, keys: *mut PyObject, metric_type: MetricType) -> Option<Site> {
        // SAFETY: as the caller says.
        unsafe {
            #[cfg(not(free_threaded))]
            if let Some(site) = table::find(name, keys, metric_type) {
                return Some(site);
            }
            make(name, keys, metric_type)
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn make(name: *mut PyObject, keys: *mut PyObject, metric_type: MetricType) -> Option<Site> {
        // SAFETY: as for `find`.
        unsafe {
            let known = names::find(name)?;
            let labels: Option<Shared<Keys>> = if keys.is_null() { None } else { keys::find(keys, Kind::Typed) };
            // Where a key is the method's own parameter the call is no usual one.
            let own = if metric_type == MetricType::Counter { "increment" } else { "value" };
            let texts = super::items(keys).iter().map(|key| super::lossy_text(*key));
            if texts.into_iter().any(|key| key == own || key == "name") {
                return None;
            }
            let instrument = instrument(known.name, metric_type);
            let site = Site { instrument, is_recommended: known.is_recommended, keys: labels };
            #[cfg(not(free_threaded))]
            table::keep(name, keys, metric_type, &site);
            Some(site)
        }
    }

    #[cfg(not(free_threaded))]
    mod table {
        use std::cell::UnsafeCell;

        use pyo3::ffi;

        use super::{MetricType, PyObject, Site};
        use crate::hot::object::Owned;

        /// A power of two.
        const SLOTS: usize = 1 << 10;

        struct Slot {
            name: Owned,
            keys: Option<Owned>,
            metric_type: MetricType,
            site: Site,
        }

        struct Table(UnsafeCell<Vec<Option<Slot>>>);

        // SAFETY: touched with the GIL held alone.
        unsafe impl Sync for Table {}

        static TABLE: Table = Table(UnsafeCell::new(Vec::new()));

        #[inline(always)]
        pub(super) unsafe fn find(name: *mut PyObject, keys: *mut PyObject, metric_type: MetricType) -> Option<Site> {
            // SAFETY: the GIL is held, and no reference into the table outlives this function.
            let slot = unsafe { (&*TABLE.0.get()).get(place(name, keys, metric_type))?.as_ref()? };
            let known = slot.keys.as_ref().map_or(std::ptr::null_mut(), Owned::as_ptr);
            let is_it = slot.name.as_ptr() == name && known == keys && slot.metric_type == metric_type;
            is_it.then(|| {
                let Site { instrument, is_recommended, ref keys } = slot.site;
                Site { instrument, is_recommended, keys: keys.clone() }
            })
        }

        pub(super) unsafe fn keep(name: *mut PyObject, keys: *mut PyObject, metric_type: MetricType, site: &Site) {
            // SAFETY: the GIL is held; exact `str`s and tuples of keyword names are dropped here alone.
            unsafe {
                if ffi::PyUnicode_CheckExact(name) == 0 {
                    return;
                }
                let Some(owned) = Owned::share(name) else { return };
                let Site { instrument, is_recommended, keys: ref labels } = *site;
                let site = Site { instrument, is_recommended, keys: labels.clone() };
                let slot = Slot { name: owned, keys: Owned::share(keys), metric_type, site };
                let table = &mut *TABLE.0.get();
                if table.is_empty() {
                    table.resize_with(SLOTS, || None);
                }
                let old = table.get_mut(place(name, keys, metric_type)).and_then(|place| place.replace(slot));
                drop(old);
            }
        }

        #[inline(always)]
        fn place(name: *mut PyObject, keys: *mut PyObject, metric_type: MetricType) -> usize {
            let mixed = (name as usize >> 4) ^ (keys as usize >> 4).rotate_left(20) ^ (metric_type as usize) << 58;
            mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - SLOTS.trailing_zeros())
        }
    }
}
