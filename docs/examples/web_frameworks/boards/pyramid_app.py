"""Pyramid with pyramid_tm and zope.sqlalchemy: a transaction for each request, aborted where the view raises."""

from typing import Any

import zope.sqlalchemy
from pyramid.config import Configurator
from pyramid.request import Request
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, sessionmaker

from boards.models import Note

engine = create_engine("postgresql+psycopg://boards@db.example.com/boards")
sessions = sessionmaker(engine)


def session_of(request: Request) -> Session:
    session = sessions()
    zope.sqlalchemy.register(session, transaction_manager=request.tm)
    return session


def notes(request: Request) -> list[str]:
    return list(request.session_of_request.scalars(select(Note.text).order_by(Note.id)))


def add(request: Request) -> dict[str, Any]:
    request.session_of_request.add(Note(text=request.json_body["text"]))
    request.session_of_request.flush()
    if not request.json_body["text"]:
        raise ValueError("an empty note")
    return {}


def create_app() -> Any:
    with Configurator(settings={"tm.manager_hook": "pyramid_tm.explicit_manager"}) as config:
        config.include("pyramid_tm")
        config.add_request_method(session_of, "session_of_request", reify=True)
        config.add_route("notes", "/notes")
        config.add_view(notes, route_name="notes", request_method="GET", renderer="json")
        config.add_view(add, route_name="notes", request_method="POST", renderer="json")
        return config.make_wsgi_app()
