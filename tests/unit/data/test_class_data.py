"""Class data: whatever one test does to its instances, the next one gets them fresh."""

import collections
import dataclasses
import threading
import types
import unittest
from decimal import Decimal
from typing import Any

from sqlalchemy import create_engine, inspect, select, update
from sqlalchemy.orm import Session, joinedload
from sqlalchemy.pool import StaticPool

from dbtestcase.data.class_data import ClassData, capture, capture_module
from dbtestcase.reporting.queries import recording
from tests.support.blog_models import Author, Base, Editor, Guest, Link, Pair, Place, Post, Quote, Tag
from tests.support.requirements import require_module


class ClassDataCase(unittest.TestCase):
    """``fill`` is somebody's setUpTestData; ``new_test`` is what each of his tests starts with."""

    def setUp(self) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        self.addCleanup(self.engine.dispose)
        Base.metadata.create_all(self.engine)

        class Blog(unittest.TestCase):
            session: Session

            def runTest(self) -> None: ...

        self.blog: Any = Blog
        self.session = self.enterContext(Session(self.engine))
        self.data: ClassData | None = None

    def capture(self) -> ClassData:
        self.data = capture(self.blog, self.session, session_of=lambda test: test.session)
        self.session.commit()
        return self.data

    def store(self, **instances: Any) -> None:
        """Add, keep on the class, capture."""
        self.session.add_all(instances.values())
        for name, instance in instances.items():
            setattr(self.blog, name, instance)
        self.capture()

    def new_test(self) -> Any:
        test = self.blog()
        test.session = Session(self.engine)
        self.addCleanup(test.session.close)
        return test

    def end_test(self, test: Any) -> None:
        test.session.close()
        assert self.data is not None
        self.data.forget(test)


class FreshInstanceTest(ClassDataCase):
    def test_an_instance_belongs_to_the_tests_session(self) -> None:
        self.store(author=Author(name="Ada"))
        test = self.new_test()
        self.assertIn(test.author, test.session)
        self.assertTrue(inspect(test.author).persistent)
        self.assertIs(test.author, test.session.get(Author, test.author.id))
        self.assertIsNot(test.author, self.blog.author)
        self.assertFalse(test.session.dirty)

    def test_it_is_made_without_a_statement(self) -> None:
        self.store(author=Author(name="Ada"), post=Post(title="Hello"))
        test = self.new_test()
        with recording() as queries:
            self.assertEqual((test.author.name, test.author.version, test.post.title), ("Ada", 1, "Hello"))
            self.assertEqual(test.author.joined, test.author.joined)
        self.assertEqual(list(queries), [])

    def test_nothing_that_a_test_did_reaches_the_next(self) -> None:
        def change(test: Any) -> None:
            test.author.name = "Changed"

        def change_and_flush(test: Any) -> None:
            change(test)
            test.session.flush()

        def change_inside(test: Any) -> None:
            test.author.settings["theme"] = "dark"
            test.author.aliases.append("Countess")
            test.author.notes.append({"deep": ["changed"]})

        def delete(test: Any) -> None:
            test.session.delete(test.author)
            test.session.flush()

        def expunge(test: Any) -> None:
            test.session.expunge(test.author)
            test.author.name = "Changed"

        def close(test: Any) -> None:
            test.session.close()

        def expire(test: Any) -> None:
            test.session.expire_all()

        def roll_back(test: Any) -> None:
            test.session.rollback()

        def empty_collection(test: Any) -> None:
            test.author.posts.clear()

        def forget_attribute(test: Any) -> None:
            del test.author.fee

        self.session.add(author := Author(name="Ada", settings={"theme": "light"}, notes=[{"deep": []}]))
        self.blog.author = author
        self.blog.post = Post(title="Hello", author=author)
        self.session.add(self.blog.post)
        self.session.flush()
        author.posts  # noqa: B018 - loaded
        self.capture()
        for harm in (
            change,
            change_and_flush,
            change_inside,
            delete,
            expunge,
            close,
            expire,
            roll_back,
            empty_collection,
            forget_attribute,
        ):
            with self.subTest(harm.__name__):
                first = self.new_test()
                self.assertEqual(first.author.name, "Ada")
                harm(first)
                first.session.rollback()
                self.end_test(first)
                test = self.new_test()
                self.assertIn(test.author, test.session)
                self.assertEqual((test.author.name, test.author.fee), ("Ada", Decimal(0)))
                self.assertEqual((test.author.settings, test.author.notes), ({"theme": "light"}, [{"deep": []}]))
                self.assertEqual(test.author.aliases, [])
                self.assertEqual(test.author.posts, [test.post])
                self.end_test(test)

    def test_the_same_test_run_again_gets_new_ones(self) -> None:
        self.store(author=Author(name="Ada"))
        test = self.new_test()
        before = test.author
        before.name = "Changed"
        self.end_test(test)
        test.session = self.enterContext(Session(self.engine))
        self.assertIsNot(test.author, before)
        self.assertEqual(test.author.name, "Ada")
        self.assertIn(test.author, test.session)

    def test_a_test_may_put_something_else_in_its_place(self) -> None:
        self.store(author=Author(name="Ada"))
        test = self.new_test()
        test.author = other = Author(name="Bob")
        self.assertIs(test.author, other)
        self.assertEqual(self.new_test().author.name, "Ada")

    def test_what_the_test_has_loaded_and_changed_stays_as_it_is(self) -> None:
        self.store(author=Author(name="Ada"))
        test = self.new_test()
        loaded = test.session.scalars(select(Author)).one()
        loaded.name = "Changed"
        self.assertIs(test.author, loaded)
        self.assertEqual(test.author.name, "Changed")

    def test_the_class_keeps_the_originals(self) -> None:
        author = Author(name="Ada")
        self.store(author=author)
        self.new_test().author.name = "Changed"
        self.assertIs(self.blog.author, author)
        self.assertEqual(author.name, "Ada")

    def test_the_state_is_the_stored_one(self) -> None:
        """Not what Python held in memory: rounded, defaulted, or changed by a statement behind the ORM's back."""
        self.store(author=Author(name="Ada", fee=Decimal("1.239")))
        self.assertEqual(self.new_test().author.fee, Decimal("1.24"))
        self.assertIsNotNone(self.new_test().author.joined)

    def test_a_change_that_was_not_flushed_is_stored(self) -> None:
        self.blog.author = author = Author(name="Ada")
        self.session.add(author)
        self.session.flush()
        author.name = "Bob"
        self.capture()
        self.assertEqual(self.new_test().author.name, "Bob")

    def test_a_bulk_update_is_seen(self) -> None:
        self.blog.author = author = Author(name="Ada")
        self.session.add(author)
        self.session.flush()
        self.session.execute(update(Author).values(name="Bob"), execution_options={"synchronize_session": False})
        self.capture()
        self.assertEqual(self.new_test().author.name, "Bob")

    def test_instances_that_a_commit_expired_are_loaded_again(self) -> None:
        self.blog.author = Author(name="Ada")
        self.session.add(self.blog.author)
        self.session.commit()
        self.capture()
        test = self.new_test()
        with recording() as queries:
            self.assertEqual(test.author.name, "Ada")
        self.assertEqual(list(queries), [])

    def test_instances_of_a_session_that_was_closed_belong_to_the_test_too(self) -> None:
        """As application code gives them back: detached, everything expired."""
        with Session(self.engine) as other:
            self.blog.author = Author(name="Ada")
            other.add(self.blog.author)
            other.commit()
        self.capture()
        test = self.new_test()
        self.assertEqual(test.author.name, "Ada")
        self.assertIn(test.author, test.session)

    def test_an_instance_that_was_never_stored_stays_so(self) -> None:
        self.store(author=Author(name="Ada"))
        self.data.release()  # type: ignore[union-attr]
        self.blog.draft = Post(title="Draft")
        self.capture()
        test = self.new_test()
        self.assertTrue(inspect(test.draft).transient)
        test.draft.author = test.author
        test.session.add(test.draft)
        test.session.flush()
        self.assertEqual(test.draft.author_id, test.author.id)
        self.assertIsNone(self.new_test().draft.id)

    def test_unsaved_instances_keep_what_they_are_related_to(self) -> None:
        author = Author(name="Ada")
        author.posts = [Post(title="One"), Post(title="Two")]
        self.blog.author = author
        self.capture()
        test = self.new_test()
        self.assertEqual([post.title for post in test.author.posts], ["One", "Two"])
        test.session.add(test.author)
        test.session.flush()
        self.assertEqual([post.author_id for post in test.author.posts], [test.author.id] * 2)

    def test_an_instance_that_was_deleted_is_handed_out_detached(self) -> None:
        self.blog.author = author = Author(name="Ada")
        self.session.add(author)
        self.session.flush()
        self.session.delete(author)
        self.session.flush()
        self.capture()
        test = self.new_test()
        self.assertEqual(test.author.name, "Ada")
        self.assertNotIn(test.author, test.session)

    def test_attributes_that_are_not_mapped_arrive_too(self) -> None:
        self.blog.author = author = Author(name="Ada")
        self.session.add(author)
        author.password = ["secret"]  # type: ignore[attr-defined]
        author.lock = lock = threading.Lock()  # type: ignore[attr-defined]
        self.capture()
        test = self.new_test()
        test.author.password.append("changed")
        self.assertEqual(self.new_test().author.password, ["secret"])
        self.assertIs(test.author.lock, lock)


class RelationshipTest(ClassDataCase):
    def test_identity_is_kept_between_attributes(self) -> None:
        author = Author(name="Ada")
        self.store(author=author, post=Post(title="Hello", author=author), other=Post(title="Again", author=author))
        for order in (("post", "author"), ("author", "post")):
            with self.subTest(order=order):
                test = self.new_test()
                for name in order:
                    getattr(test, name)
                with recording() as queries:
                    self.assertIs(test.post.author, test.author)
                    self.assertIs(test.other.author, test.author)
                self.assertEqual(list(queries), [])

    def test_loaded_relationships_arrive_loaded(self) -> None:
        tag = Tag(name="sql")
        author = Author(name="Ada")
        author.posts = [Post(title=f"{number}", tags=[tag]) for number in range(3)]
        author.links = {"home": Link(label="home", url="https://ada.example")}
        author.pairs = {Pair(number=1, text="one"), Pair(number=2, text="two")}
        self.store(author=author)
        test = self.new_test()
        with recording() as queries:
            self.assertEqual([post.title for post in test.author.posts], ["0", "1", "2"])
            self.assertTrue(all(post.author is test.author for post in test.author.posts))
            self.assertEqual({post.tags[0].uses for post in test.author.posts}, {3})
            self.assertEqual(test.author.links["home"].url, "https://ada.example")
            self.assertEqual(dict(test.author.urls), {"home": "https://ada.example"})
            self.assertEqual({pair.text for pair in test.author.pairs}, {"one", "two"})
        self.assertEqual(list(queries), [])
        self.assertFalse(test.session.dirty)
        test.author.links["mail"] = Link(label="mail", url="mailto:ada")
        test.session.flush()
        self.assertEqual(test.author.links["mail"].author_id, test.author.id)

    def test_relationships_that_were_not_loaded_load_when_they_are_asked_for(self) -> None:
        author = Author(name="Ada")
        self.session.add(author)
        self.session.flush()
        self.store(author=author, post=Post(title="Hello", author_id=author.id))
        test = self.new_test()
        self.assertNotIn("posts", inspect(test.author).dict)
        self.assertEqual(test.author.posts, [test.post])
        self.assertIs(test.post.author, test.author)

    def test_a_collection_that_was_outdated_in_memory_is_as_stored(self) -> None:
        author = Author(name="Ada")
        self.session.add(author)
        self.session.flush()
        self.assertEqual(author.posts, [])
        self.session.add(Post(title="Hello", author_id=author.id))
        self.store(author=author)
        self.assertEqual([post.title for post in self.new_test().author.posts], ["Hello"])

    def test_a_list_keeps_the_order_in_which_it_was_filled(self) -> None:
        author = Author(name="Ada")
        first, second, third = (Post(id=number, title=f"{number}") for number in (3, 1, 2))
        author.posts = [first, second, third]
        self.store(author=author)
        self.assertEqual([post.id for post in self.new_test().author.posts], [3, 1, 2])

    def test_a_relationship_to_nothing_is_loaded_as_nothing(self) -> None:
        self.store(post=Post(title="Hello", author=None))
        test = self.new_test()
        with recording() as queries:
            self.assertIsNone(test.post.author)
        self.assertEqual(list(queries), [])

    def test_a_long_chain_does_not_exhaust_the_stack(self) -> None:
        last = None
        for number in range(1100):
            last = Post(title=f"{number}", parent=last)
        self.store(last=last)
        test = self.new_test()
        post, length = test.last, 0
        while post is not None:
            post, length = post.parent, length + 1
        self.assertEqual(length, 1100)

    def test_a_cycle_is_closed(self) -> None:
        first, second = Post(title="1"), Post(title="2")
        self.session.add_all([first, second])
        self.session.flush()
        first.parent_id, second.parent_id = second.id, first.id  # as objects, one flush cannot order them
        self.session.flush()
        self.assertEqual((first.parent, second.parent), (second, first))
        self.store(first=first)
        test = self.new_test()
        self.assertIs(test.first.parent.parent, test.first)

    def test_rows_are_read_in_a_few_statements_not_one_each(self) -> None:
        author = Author(name="Ada")
        self.blog.posts = [
            Post(title=f"{number}", author=author, tags=[Tag(name=f"{number}")]) for number in range(300)
        ]
        self.session.add_all(self.blog.posts)
        self.session.flush()
        with recording() as queries:
            self.capture()
        self.assertLessEqual(len(queries), 12, queries.queries)


class MappingTest(ClassDataCase):
    def test_inheritance(self) -> None:
        self.store(editor=Editor(name="Eve", desk="News"), guest=Guest(name="Gus", invited_by="Eve"))
        test = self.new_test()
        with recording() as queries:
            self.assertEqual((type(test.editor), test.editor.desk, test.editor.kind), (Editor, "News", "editor"))
            self.assertEqual((type(test.guest), test.guest.invited_by), (Guest, "Eve"))
        self.assertEqual(list(queries), [])
        self.assertIs(test.session.get(Author, test.editor.id), test.editor)

    def test_composites(self) -> None:
        self.store(author=Author(name="Ada", home=Place("London", "UK")))
        test = self.new_test()
        self.assertEqual(test.author.home, Place("London", "UK"))
        test.author.home = Place("Paris", "FR")
        test.session.flush()
        test.session.refresh(test.author)
        self.assertEqual(test.author.city, "Paris")

    def test_mutable_values_report_their_changes(self) -> None:
        self.store(author=Author(name="Ada"))
        test = self.new_test()
        test.author.settings["theme"] = "dark"
        test.author.aliases.append("Countess")
        self.assertIn(test.author, test.session.dirty)
        test.session.flush()
        test.session.expire(test.author)
        self.assertEqual((test.author.settings, test.author.aliases), ({"theme": "dark"}, ["Countess"]))

    def test_deferred_columns_stay_deferred_until_they_were_loaded(self) -> None:
        self.blog.author = author = Author(name="Ada", biography="Long.")
        self.session.add(author)
        self.session.commit()
        self.capture()
        test = self.new_test()
        self.assertNotIn("biography", inspect(test.author).dict)
        self.assertEqual(test.author.biography, "Long.")
        self.data.release()  # type: ignore[union-attr]
        self.assertEqual(author.biography, "Long.")
        self.capture()
        test = self.new_test()
        self.assertIn("biography", inspect(test.author).dict)

    def test_a_version_counter_goes_on(self) -> None:
        self.store(author=Author(name="Ada"))
        test = self.new_test()
        test.author.name = "Bob"
        test.session.flush()
        self.assertEqual(test.author.version, 2)

    def test_hybrids_and_reconstructors(self) -> None:
        self.store(author=Author(name="Ada"))
        test = self.new_test()
        self.assertEqual(test.author.shout, "ADA")
        self.assertTrue(test.author.was_loaded)

    def test_mapped_dataclasses(self) -> None:
        self.store(quote=Quote(text="Hello", author=Author(name="Ada")))
        test = self.new_test()
        self.assertEqual((test.quote.text, test.quote.author.name), ("Hello", "Ada"))
        self.assertIn("text='Hello'", repr(test.quote))

    def test_composite_primary_keys(self) -> None:
        self.store(author=Author(name="Ada", pairs={Pair(number=7, text="seven")}))
        test = self.new_test()
        (pair,) = test.author.pairs
        self.assertIs(test.session.get(Pair, (test.author.id, 7)), pair)

    def test_eagerly_loaded_instances(self) -> None:
        author = Author(name="Ada", posts=[Post(title="Hello")])
        self.session.add(author)
        self.session.commit()
        self.session.expunge_all()
        self.blog.author = self.session.scalars(select(Author).options(joinedload(Author.posts))).unique().one()
        self.capture()
        test = self.new_test()
        with recording() as queries:
            self.assertEqual(test.author.posts[0].title, "Hello")
        self.assertEqual(list(queries), [])

    def test_sqlmodel(self) -> None:
        require_module("sqlmodel")
        from sqlmodel import Field, Relationship, SQLModel

        class Team(SQLModel, table=True):
            id: int | None = Field(default=None, primary_key=True)
            name: str
            heroes: list["Hero"] = Relationship(back_populates="team")

        class Hero(SQLModel, table=True):
            id: int | None = Field(default=None, primary_key=True)
            name: str
            team_id: int | None = Field(default=None, foreign_key="team.id")
            team: Team | None = Relationship(back_populates="heroes")

        SQLModel.metadata.create_all(self.engine)
        self.store(hero=Hero(name="Ada", team=Team(name="Analysts")))
        for _ in range(2):
            test = self.new_test()
            self.assertEqual((test.hero.name, test.hero.team.name), ("Ada", "Analysts"))
            self.assertEqual(test.hero.model_dump()["name"], "Ada")
            test.hero.name = "Changed"
            test.hero.team.heroes.append(Hero(name="Eve"))
            test.session.flush()
            test.session.rollback()


class ContainerTest(ClassDataCase):
    def test_containers_of_instances_are_fresh(self) -> None:
        @dataclasses.dataclass(frozen=True)
        class Pack:
            author: Author
            posts: list[Post]
            name: str = "pack"

        Named = collections.namedtuple("Named", "author post")
        author, post = Author(name="Ada"), Post(title="Hello")
        self.session.add_all([author, post])
        post.author = author
        self.blog.listed = [author, [post]]
        self.blog.mapped = {"author": author, post: "by instance"}
        self.blog.tupled = (author, 1)
        self.blog.unique = {author, post}
        self.blog.frozen = frozenset([author])
        self.blog.named = Named(author, post)
        self.blog.queue = collections.deque([author], maxlen=3)
        self.blog.grouped = collections.defaultdict(list, {"a": [author]})
        self.blog.pack = Pack(author, [post])
        self.blog.space = types.SimpleNamespace(author=author)
        self.capture()
        for _ in range(2):
            test = self.new_test()
            author = test.space.author
            post = test.listed[1][0]
            self.assertIn(author, test.session)
            self.assertIs(post.author, author)
            self.assertEqual(test.listed, [author, [post]])
            self.assertEqual(test.mapped, {"author": author, post: "by instance"})
            self.assertEqual(test.tupled, (author, 1))
            self.assertEqual((test.unique, test.frozen), ({author, post}, frozenset([author])))
            self.assertEqual((test.named.author, test.named.post), (author, post))
            self.assertEqual((list(test.queue), test.queue.maxlen), ([author], 3))
            self.assertEqual(test.grouped["new"], [])
            self.assertEqual(test.pack, Pack(author, [post]))
            test.listed.clear(), test.listed.append(None)
            test.mapped.clear()
            test.grouped["a"].clear()
            test.pack.posts.clear()
            test.space.author = None
            self.end_test(test)
        self.assertEqual(len(self.blog.listed), 2)

    def test_one_container_under_two_names_is_one(self) -> None:
        self.blog.first = self.blog.second = [Author(name="Ada")]
        self.session.add_all(self.blog.first)
        self.capture()
        test = self.new_test()
        self.assertIs(test.first, test.second)

    def test_a_container_may_hold_itself(self) -> None:
        author = Author(name="Ada")
        self.session.add(author)
        self.blog.ring = [author]
        self.blog.ring.append(self.blog.ring)
        self.capture()
        test = self.new_test()
        self.assertIs(test.ring[1], test.ring)
        self.assertEqual(test.ring[0].name, "Ada")

    def test_a_relationships_own_collection_is_the_fresh_instances(self) -> None:
        author = Author(name="Ada", posts=[Post(title="Hello")])
        self.session.add(author)
        self.blog.author = author
        self.blog.posts = author.posts
        self.capture()
        test = self.new_test()
        self.assertIs(test.posts, test.author.posts)

    def test_rows_of_a_result(self) -> None:
        self.session.add(Author(name="Ada"))
        self.blog.rows = self.session.execute(select(Author, Author.name)).all()
        self.capture()
        test = self.new_test()
        self.assertIn(test.rows[0].Author, test.session)
        self.assertEqual(test.rows[0].name, "Ada")

    def test_what_holds_no_instances_is_left_alone(self) -> None:
        self.blog.calls = calls = []
        self.blog.payload = payload = {"a": [1]}
        self.blog.author = Author(name="Ada")
        self.session.add(self.blog.author)
        self.assertEqual(self.capture().names, {"author"})
        test = self.new_test()
        self.assertIs(test.calls, calls)
        self.assertIs(test.payload, payload)

    def test_what_a_container_holds_beside_instances_is_shared(self) -> None:
        lock = threading.Lock()
        self.blog.pack = {"author": Author(name="Ada"), "lock": lock}
        self.session.add(self.blog.pack["author"])
        self.capture()
        self.assertIs(self.new_test().pack["lock"], lock)


class ClassesTest(ClassDataCase):
    def test_an_attribute_declared_on_the_class_or_its_base_is_found(self) -> None:
        class Derived(self.blog):  # type: ignore[misc,name-defined]
            author = None

        self.blog.authors = [Author(name="Ada")]
        Derived.author = Author(name="Bob")
        self.session.add_all([*self.blog.authors, Derived.author])
        data = capture(Derived, self.session, session_of=lambda test: test.session)
        self.assertEqual(data.names, {"author", "authors"})
        test = Derived()
        test.session = self.session
        self.assertEqual((test.author.name, test.authors[0].name), ("Bob", "Ada"))
        data.release()
        self.assertNotIn("authors", vars(Derived))
        self.assertIs(Derived.author, vars(Derived)["author"])

    def test_a_class_and_its_subclass_have_their_own(self) -> None:
        self.store(author=Author(name="Ada"))

        class Derived(self.blog):  # type: ignore[misc,name-defined]
            pass

        Derived.author = Author(name="Bob")
        self.session.add(Derived.author)
        derived = capture(Derived, self.session, session_of=lambda test: test.session)
        test = Derived()
        test.session = self.session
        self.assertEqual((test.author.name, self.new_test().author.name), ("Bob", "Ada"))
        derived.release()

    def test_after_release_the_class_is_as_set_up_left_it(self) -> None:
        author = Author(name="Ada")
        self.store(author=author)
        self.data.release()  # type: ignore[union-attr]
        self.assertIs(vars(self.blog)["author"], author)

    def test_set_up_may_run_again(self) -> None:
        self.store(author=Author(name="Ada"))
        self.blog.author = Author(name="Bob")
        self.session.add(self.blog.author)
        self.capture()
        self.assertEqual(self.new_test().author.name, "Bob")

    def test_a_class_without_class_data_is_not_touched(self) -> None:
        before = dict(vars(self.blog))
        with recording() as queries:
            self.assertEqual(len(self.capture()), 0)
        self.assertEqual(dict(vars(self.blog)), before)
        self.assertEqual(list(queries), [])

    def test_the_classes_session_and_its_instances_stay_as_they_are(self) -> None:
        self.blog.author = author = Author(name="Ada", posts=[Post(title="Hello")])
        self.session.add(author)
        self.session.flush()
        transaction = self.session.get_transaction()
        capture(self.blog, self.session, session_of=lambda test: test.session)
        self.assertIs(self.session.get_transaction(), transaction)
        self.assertIn(author, self.session)
        self.session.rollback()
        self.assertEqual(self.session.scalars(select(Author)).all(), [])


class ModuleDataTest(ClassDataCase):
    def test_globals_of_a_module_are_fresh_in_each_test(self) -> None:
        module: Any = types.ModuleType("test_blog")
        module.author = author = Author(name="Ada")
        module.posts = [Post(title="Hello", author=author)]
        module.count = 1
        self.session.add_all([author, *module.posts])
        self.session.commit()
        data = capture_module(module, self.session)
        self.assertEqual(len(data), 2)
        for _ in range(2):
            with Session(self.engine) as session:
                data.hand_out(session)
                self.assertIn(module.author, session)
                self.assertIs(module.posts[0].author, module.author)
                self.assertEqual(module.author.name, "Ada")
                module.author.name = "Changed"
                session.delete(module.posts[0])
                session.flush()
        data.release()
        self.assertIs(module.author, author)

    def test_they_are_the_same_as_the_classes_own(self) -> None:
        module: Any = types.ModuleType("test_blog")
        module.author = Author(name="Ada")
        self.session.add(module.author)
        module_data = capture_module(module, self.session)
        self.store(author=module.author)
        test = self.new_test()
        module_data.hand_out(test.session)
        self.assertIs(test.author, module.author)


if __name__ == "__main__":
    unittest.main()
