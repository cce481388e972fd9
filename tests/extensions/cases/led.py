"""Cases: rules of LED."""

from __future__ import annotations

from tests.extensions.case import Case

UNHELD = (
    Case("46", "filter", "-j LED --led-trigger-id foo", '-j LED --led-trigger-id "foo"', None),
    Case(
        "46",
        "filter",
        "-j LED --led-always-blink --led-delay 42 --led-trigger-id foo",
        '-j LED --led-trigger-id "foo" --led-delay 42 --led-always-blink',
        None,
    ),
    Case(
        "46",
        "filter",
        '-j LED --led-trigger-id "a\\"b" --led-delay infinite',
        '-j LED --led-trigger-id "a\\"b" --led-delay inf',
        None,
    ),
)
REFUSED = (
    ("-j LED", "--led-trigger-id"),
    ("-j LED --led-trigger-id seventeen-letters", "16 bytes"),
    ("-j LED --led-trigger-id foo --led-delay soon", "soon"),
)
EQUAL = (("-j LED --led-trigger-id foo --led-delay 0", "-j LED --led-trigger-id foo"),)
DIFFERENT = (("-j LED --led-trigger-id foo", "-j LED --led-trigger-id bar"),)
UNSAYABLE = (("-j LED --led-trigger-id foo", "lights"),)
