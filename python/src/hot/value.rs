//! Python objects as attribute values of records.
//!
//! Copied are `bool`, `int`, `float`, `str`, `bytes`, `None`, members of an `Enum`, paths, UUIDs, dates and times,
//! `Decimal`s, and flat containers of up to 16 of these as a text. Of anything else the type's name is kept, so that no
//! code of the program runs; with `capture_repr` its `repr`.

use std::fmt::Write as _;

use kastor::{Value, raw::Amount};
use pyo3::ffi::{self, PyObject};

use super::{
    calls,
    object::{Owned, lossy_text, utf8},
};

/// Characters of a text that are looked at; records keep fewer bytes.
const MAX_CHARACTERS: ffi::Py_ssize_t = 4 << 10;
/// Items of a container that is copied.
const MAX_ITEMS: usize = 16;

/// Calls `f` with an object as a value. May run code of the standard library, with `capture_repr` of the program; leaves
/// no error set.
///
/// # Safety
/// `object` is alive; the thread is attached.
#[inline]
pub(crate) unsafe fn with<R>(object: *mut PyObject, capture_repr: bool, f: impl FnOnce(&Value<'_>) -> R) -> R {
    // SAFETY: the type is checked before the object is read as one of it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        if class == &raw mut ffi::PyLong_Type {
            let mut overflow = 0;
            let number = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
            if overflow == 0 {
                return f(&Value::I64(number));
            }
        } else if class == &raw mut ffi::PyUnicode_Type && ffi::PyUnicode_GetLength(object) <= MAX_CHARACTERS {
            if let Some(text) = utf8(object) {
                return f(&Value::Str(text));
            }
        } else if class == &raw mut ffi::PyFloat_Type {
            return f(&Value::F64(ffi::PyFloat_AS_DOUBLE(object)));
        }
        with_rare(object, capture_repr, f)
    }
}

#[cold]
unsafe fn with_rare<R>(object: *mut PyObject, capture_repr: bool, f: impl FnOnce(&Value<'_>) -> R) -> R {
    // SAFETY: as for `with`.
    unsafe {
        if object == ffi::Py_None() {
            return f(&Value::Null);
        }
        if object == ffi::Py_True() || object == ffi::Py_False() {
            return f(&Value::Bool(object == ffi::Py_True()));
        }
        if ffi::PyBytes_Check(object) != 0 {
            let bytes = ffi::PyBytes_AsString(object).cast::<u8>();
            return f(&Value::Bytes(std::slice::from_raw_parts(bytes, ffi::PyBytes_Size(object) as usize)));
        }
        if ffi::PyFloat_Check(object) != 0 {
            return f(&Value::F64(ffi::PyFloat_AS_DOUBLE(object)));
        }
        if ffi::PyLong_Check(object) != 0 {
            return match big_integer(object) {
                Integer::Unsigned(number) => f(&Value::U64(number)),
                Integer::Signed(number) => f(&Value::I64(number)),
                Integer::Float(number) => f(&Value::F64(number)),
            };
        }
        // A container of containers has its type's name alone.
        let text = text(object).or_else(|| container(object)).unwrap_or_else(|| opaque(object, capture_repr));
        f(&Value::Str(&text))
    }
}

enum Integer {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

unsafe fn big_integer(object: *mut PyObject) -> Integer {
    // SAFETY: an integer.
    unsafe {
        let mut overflow = 0;
        let signed = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
        if overflow == 0 {
            return Integer::Signed(signed);
        }
        if overflow > 0 {
            let unsigned = ffi::PyLong_AsUnsignedLongLong(object);
            if ffi::PyErr_Occurred().is_null() {
                return Integer::Unsigned(unsigned);
            }
            ffi::PyErr_Clear();
        }
        let float = ffi::PyLong_AsDouble(object);
        if !ffi::PyErr_Occurred().is_null() {
            ffi::PyErr_Clear();
            return Integer::Float(if overflow > 0 { f64::INFINITY } else { f64::NEG_INFINITY });
        }
        Integer::Float(float)
    }
}

/// A single thing with a text of its own.
unsafe fn text(object: *mut PyObject) -> Option<String> {
    // SAFETY: checked before it is read as a `str`.
    unsafe {
        if ffi::PyUnicode_Check(object) != 0 {
            if ffi::PyUnicode_GetLength(object) <= MAX_CHARACTERS {
                return Some(lossy_text(object));
            }
            // One character more than is kept, so that it counts as cut.
            let start = Owned::take(ffi::PyUnicode_Substring(object, 0, MAX_CHARACTERS + 1))?;
            return Some(lossy_text(start.as_ptr()));
        }
        known(object)
    }
}

/// The classes of the standard library whose `__str__` is asked for. They are looked for where they are loaded: an object
/// of a class that is not loaded does not exist.
const KNOWN: [(&str, &std::ffi::CStr, &std::ffi::CStr, &std::ffi::CStr); 8] = [
    ("enum", c"enum", c"Enum", c"__str__"),
    ("pathlib", c"pathlib", c"PurePath", c"__str__"),
    ("uuid", c"uuid", c"UUID", c"__str__"),
    ("datetime", c"datetime", c"datetime", c"isoformat"),
    ("date", c"datetime", c"date", c"isoformat"),
    ("time", c"datetime", c"time", c"isoformat"),
    ("timedelta", c"datetime", c"timedelta", c"__str__"),
    ("decimal", c"decimal", c"Decimal", c"__str__"),
];

unsafe fn known(object: *mut PyObject) -> Option<String> {
    // SAFETY: all of these take any object; borrowed ones are kept by their modules.
    unsafe {
        let modules = ffi::PyImport_GetModuleDict();
        for (_, module, class, method) in KNOWN {
            let module = ffi::PyDict_GetItemString(modules, module.as_ptr());
            if module.is_null() {
                continue;
            }
            let Some(class) = calls::attribute(module, class) else {
                ffi::PyErr_Clear();
                continue;
            };
            if ffi::PyType_Check(class.as_ptr()) == 0
                || ffi::PyType_IsSubtype(ffi::Py_TYPE(object), class.as_ptr().cast()) == 0
            {
                continue;
            }
            // The class's own method, whatever a subclass makes of it.
            let text =
                calls::attribute(class.as_ptr(), method).and_then(|method| calls::with_one(method.as_ptr(), object));
            match text {
                Some(text) if ffi::PyUnicode_Check(text.as_ptr()) != 0 => return Some(lossy_text(text.as_ptr())),
                _ => ffi::PyErr_Clear(),
            }
        }
        None
    }
}

/// A flat container as text in the form of JSON.
unsafe fn container(object: *mut PyObject) -> Option<String> {
    // SAFETY: the type is exact, so that no code of the program answers for it; items are held while they are read.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let mut out = String::new();
        if class == &raw mut ffi::PyDict_Type {
            if ffi::PyDict_Size(object) as usize > MAX_ITEMS {
                return None;
            }
            let items = Owned::take(ffi::PyDict_Items(object))?;
            out.push('{');
            for at in 0..ffi::PyList_Size(items.as_ptr()) {
                let pair = ffi::PyList_GetItem(items.as_ptr(), at);
                out.push_str(if at > 0 { ", " } else { "" });
                push_item(&mut out, ffi::PyTuple_GetItem(pair, 0))?;
                out.push_str(": ");
                push_item(&mut out, ffi::PyTuple_GetItem(pair, 1))?;
            }
            out.push('}');
            return Some(out);
        }
        let is_sequence = class == &raw mut ffi::PyList_Type || class == &raw mut ffi::PyTuple_Type;
        let is_set = class == &raw mut ffi::PySet_Type || class == &raw mut ffi::PyFrozenSet_Type;
        if !is_sequence && !is_set || ffi::PyObject_Size(object) as usize > MAX_ITEMS {
            return None;
        }
        let Some(items) = Owned::take(ffi::PySequence_Tuple(object)) else {
            ffi::PyErr_Clear();
            return None;
        };
        out.push('[');
        for at in 0..ffi::PyTuple_Size(items.as_ptr()) {
            out.push_str(if at > 0 { ", " } else { "" });
            push_item(&mut out, ffi::PyTuple_GetItem(items.as_ptr(), at))?;
        }
        out.push(']');
        Some(out)
    }
}

unsafe fn push_item(out: &mut String, item: *mut PyObject) -> Option<()> {
    // SAFETY: the caller's container keeps the item.
    unsafe {
        if item == ffi::Py_None() {
            out.push_str("null");
        } else if ffi::PyBool_Check(item) != 0 {
            out.push_str(if item == ffi::Py_True() { "true" } else { "false" });
        } else if ffi::PyLong_Check(item) != 0 {
            let _ = match big_integer(item) {
                Integer::Unsigned(number) => write!(out, "{number}"),
                Integer::Signed(number) => write!(out, "{number}"),
                Integer::Float(number) => write!(out, "{number:e}"),
            };
        } else if ffi::PyFloat_Check(item) != 0 {
            let _ = write!(out, "{:?}", ffi::PyFloat_AS_DOUBLE(item));
        } else {
            push_quoted(out, &text(item)?);
        }
        Some(())
    }
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            character if character.is_control() => {
                let _ = write!(out, "\\u{:04x}", character as u32);
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

/// What is kept of an object that is not copied.
unsafe fn opaque(object: *mut PyObject, capture_repr: bool) -> String {
    // SAFETY: an object that is alive.
    unsafe {
        if capture_repr {
            match calls::repr(object) {
                Some(repr) => {
                    if let Some(text) = text(repr.as_ptr()) {
                        return text;
                    }
                }
                None => swallow(),
            }
        }
        format!("<{}>", class_name(ffi::Py_TYPE(object).cast()))
    }
}

/// Clears an error that user code left; one that is no `Exception` is raised again as soon as the interpreter looks.
unsafe fn swallow() {
    // SAFETY: there is an error.
    unsafe {
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_Exception) == 0
            && ffi::PyErr_ExceptionMatches(ffi::PyExc_KeyboardInterrupt) != 0
        {
            ffi::PyErr_Clear();
            ffi::PyErr_SetInterrupt();
        } else {
            ffi::PyErr_Clear();
        }
    }
}

/// The qualified name of a class, without `builtins.`; leaves no error set.
///
/// # Safety
/// `class` is alive.
pub(crate) unsafe fn class_name(class: *mut PyObject) -> String {
    // SAFETY: as the caller says.
    unsafe {
        let text = |name: &std::ffi::CStr| {
            let found = calls::attribute(class, name).filter(|text| ffi::PyUnicode_Check(text.as_ptr()) != 0);
            if !ffi::PyErr_Occurred().is_null() {
                ffi::PyErr_Clear();
            }
            found.map(|text| lossy_text(text.as_ptr()))
        };
        let name = text(c"__qualname__").unwrap_or_else(|| "?".to_owned());
        match text(c"__module__") {
            Some(module) if module != "builtins" => format!("{module}.{name}"),
            _ => name,
        }
    }
}

/// An object as the amount of an instrument; none if it is no number. May run `__float__` of the program; leaves no error
/// set.
///
/// # Safety
/// `object` is alive; the thread is attached.
#[inline]
pub(crate) unsafe fn amount(object: *mut PyObject) -> Option<Amount> {
    // SAFETY: the type is checked before the object is read as one of it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        if class == &raw mut ffi::PyLong_Type {
            let mut overflow = 0;
            let number = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
            if overflow == 0 {
                return Some(u64::try_from(number).map_or(Amount::Signed(number), Amount::Unsigned));
            }
        } else if class == &raw mut ffi::PyFloat_Type {
            return Some(Amount::Float(ffi::PyFloat_AS_DOUBLE(object)));
        }
        rare_amount(object)
    }
}

#[cold]
unsafe fn rare_amount(object: *mut PyObject) -> Option<Amount> {
    // SAFETY: as for `amount`.
    unsafe {
        if ffi::PyLong_Check(object) != 0 {
            return Some(match big_integer(object) {
                Integer::Unsigned(number) => Amount::Unsigned(number),
                Integer::Signed(number) => u64::try_from(number).map_or(Amount::Signed(number), Amount::Unsigned),
                Integer::Float(number) => Amount::Float(number),
            });
        }
        if ffi::PyFloat_Check(object) != 0 {
            return Some(Amount::Float(ffi::PyFloat_AS_DOUBLE(object)));
        }
        if ffi::PyUnicode_Check(object) != 0 || ffi::PyNumber_Check(object) == 0 {
            return None;
        }
        let number = calls::float(object);
        if ffi::PyErr_Occurred().is_null() {
            return Some(Amount::Float(number));
        }
        swallow();
        None
    }
}
