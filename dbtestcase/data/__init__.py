"""Rows of tests: class data, factories, sessions."""

from __future__ import annotations

from .class_data import ClassData, ModuleData, capture, capture_module
from .factories import Factories, FactoryManager, bound, is_factory
from .sessions import async_session_scope, engine_of, restore, session_scope, settle

__all__ = [
    "ClassData",
    "Factories",
    "FactoryManager",
    "ModuleData",
    "async_session_scope",
    "bound",
    "capture",
    "capture_module",
    "engine_of",
    "is_factory",
    "restore",
    "session_scope",
    "settle",
]
