"""A blog's models, with one of everything that the ORM can map: what class data and factories are tried on."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, Column, ForeignKey, Numeric, String, Table, func, select
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    attribute_keyed_dict,
    column_property,
    composite,
    mapped_column,
    reconstructor,
    relationship,
)


class Base(DeclarativeBase):
    pass


class Place:
    """A composite: two columns as one value."""

    def __init__(self, city: str | None, country: str | None) -> None:
        self.city, self.country = city, country

    def __composite_values__(self) -> tuple[str | None, str | None]:
        return self.city, self.country

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.__composite_values__() == other.__composite_values__()

    __hash__ = None  # type: ignore[assignment]


post_tags = Table(
    "post_tags",
    Base.metadata,
    Column("post_id", ForeignKey("posts.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    kind: Mapped[str] = mapped_column(String(10), default="author")
    fee: Mapped[Decimal] = mapped_column(Numeric(10, 2), default=0)
    joined: Mapped[datetime.datetime] = mapped_column(server_default=func.current_timestamp())
    settings: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(JSON), default=dict)
    aliases: Mapped[list[str]] = mapped_column(MutableList.as_mutable(JSON), default=list)
    notes: Mapped[list[Any]] = mapped_column(JSON, default=list)
    biography: Mapped[str | None] = mapped_column(deferred=True)
    city: Mapped[str | None]
    country: Mapped[str | None]
    home: Mapped[Place] = composite("city", "country")
    version: Mapped[int] = mapped_column()

    posts: Mapped[list[Post]] = relationship(back_populates="author")
    links: Mapped[dict[str, Link]] = relationship(collection_class=attribute_keyed_dict("label"))
    pairs: Mapped[set[Pair]] = relationship()
    urls: AssociationProxy[dict[str, str]] = association_proxy("links", "url")

    __mapper_args__ = {"version_id_col": version, "polymorphic_on": kind, "polymorphic_identity": "author"}

    @reconstructor
    def loaded(self) -> None:
        self.was_loaded = True

    @hybrid_property
    def shout(self) -> str:
        return self.name.upper()


class Editor(Author):
    """Joined-table inheritance."""

    __tablename__ = "editors"

    id: Mapped[int] = mapped_column(ForeignKey("authors.id"), primary_key=True)
    desk: Mapped[str]

    __mapper_args__ = {"polymorphic_identity": "editor"}


class Guest(Author):
    """Single-table inheritance."""

    invited_by: Mapped[str | None]

    __mapper_args__ = {"polymorphic_identity": "guest"}


class Post(Base):
    __tablename__ = "posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("posts.id"))

    author: Mapped[Author | None] = relationship(back_populates="posts")
    tags: Mapped[list[Tag]] = relationship(secondary=post_tags)
    parent: Mapped[Post | None] = relationship(remote_side=[id], back_populates="replies")
    replies: Mapped[list[Post]] = relationship(back_populates="parent")


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    uses: Mapped[int] = column_property(
        select(func.count()).where(post_tags.c.tag_id == id).correlate_except(post_tags).scalar_subquery()
    )


class Link(Base):
    __tablename__ = "links"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    label: Mapped[str]
    url: Mapped[str]


class Pair(Base):
    """A composite primary key."""

    __tablename__ = "pairs"

    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Quote(MappedAsDataclass, Base, kw_only=True):
    __tablename__ = "quotes"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    text: Mapped[str]
    author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"), default=None)
    author: Mapped[Author | None] = relationship(default=None)
