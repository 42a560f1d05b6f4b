"""What the blog does.  Every function opens, commits and closes a session of its own."""

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, orm, select
from sqlalchemy.exc import IntegrityError

from .db import Session, engine
from .models import Author, Comment, Post, Tag


class UnknownPost(LookupError):
    """No post has this slug."""


def register(name: str) -> int:
    """Add an author; the id."""
    with Session.begin() as session:
        author = Author(name=name)
        session.add(author)
        session.flush()
        return author.id


def publish(author_id: int, title: str, body: str = "", tags: Iterable[str] = ()) -> str:
    """Publish a post; its slug, made from the title, with a number behind it where the title was used before."""
    base = re.sub(r"\W+", "-", title.lower()).strip("-")
    slug, number = base, 1
    while True:
        with Session() as session:
            post = Post(author_id=author_id, title=title, slug=slug, body=body)
            post.tags = [_tag(session, name) for name in sorted(set(tags))]
            session.add(post)
            try:
                session.commit()
            except IntegrityError as error:
                session.rollback()
                if "posts_slug_key" not in str(error.orig):
                    raise
                number += 1
                slug = f"{base}-{number}"
            else:
                return slug


def _tag(session: orm.Session, name: str) -> Tag:
    return session.scalar(select(Tag).filter_by(name=name)) or Tag(name=name)


def comment(slug: str, body: str) -> None:
    """Add a comment to a post."""
    with Session() as session:
        post = session.scalar(select(Post).filter_by(slug=slug))
        if post is None:
            raise UnknownPost(slug)
        post.comments.append(Comment(body=body))
        session.commit()


def withdraw(slug: str) -> bool:
    """Delete a post with its comments; whether there was one."""
    with Session.begin() as session:
        post = session.scalar(select(Post).filter_by(slug=slug))
        if post is None:
            return False
        session.delete(post)
        return True


def hand_over(old_author_id: int, new_author_id: int) -> int:
    """Give all posts of one author to another and delete the first, in one transaction; how many posts."""
    with Session.begin() as session:
        posts = session.scalars(select(Post).filter_by(author_id=old_author_id)).all()
        for post in posts:
            post.author_id = new_author_id
        session.flush()
        session.delete(session.get_one(Author, old_author_id))
        return len(posts)


def most_discussed(limit: int = 10) -> list[tuple[str, int]]:
    """Titles and numbers of comments, most first; straight from Core."""
    statement = (
        select(Post.title, func.count(Comment.id))
        .outerjoin(Comment, Comment.post_id == Post.id)
        .group_by(Post.id)
        .order_by(func.count(Comment.id).desc(), Post.title)
        .limit(limit)
    )
    with engine.connect() as connection:
        return [(title, count) for title, count in connection.execute(statement)]


def import_comments(slug: str, bodies: Iterable[str]) -> int:
    """Load comments by the driver's own COPY; how many."""
    with Session() as session:
        post_id = session.scalar(select(Post.id).filter_by(slug=slug))
    if post_id is None:
        raise UnknownPost(slug)
    raw: Any = engine.raw_connection()
    try:
        with raw.cursor() as cursor, cursor.copy("COPY comments (post_id, body) FROM STDIN") as copy:
            count = 0
            for body in bodies:
                copy.write_row((post_id, body))
                count += 1
        raw.commit()
    finally:
        raw.close()
    return count
