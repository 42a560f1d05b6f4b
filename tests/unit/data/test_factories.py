"""Factories use the session they are bound to, by their own rules, and are afterwards exactly as before."""

import asyncio
import sys
import types
import unittest
from typing import Any

import factory
from factory.alchemy import SQLAlchemyModelFactory
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from dbtestcase.data.factories import FactoryManager, bound
from dbtestcase.errors import ConfigurationError
from tests.support.blog_models import Author, Base, Link, Post, Tag
from tests.support.requirements import require_module

production = create_engine("sqlite://", poolclass=StaticPool)  # no tables in it: whoever uses it fails
ApplicationSession = scoped_session(sessionmaker(production))


class AuthorFactory(SQLAlchemyModelFactory):
    """Written with no session: its users were to set one."""

    class Meta:
        model = Author

    name = factory.Sequence("Author {}".format)


class LinkFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Link
        sqlalchemy_session_factory = ApplicationSession
        sqlalchemy_session_persistence = "commit"

    label = factory.Sequence("link{}".format)
    url = "https://example.org"


class TagFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Tag
        sqlalchemy_session = ApplicationSession
        sqlalchemy_get_or_create = ("name",)

    name = "sql"


class BaseFactory(SQLAlchemyModelFactory):
    class Meta:
        abstract = True
        sqlalchemy_session = ApplicationSession
        sqlalchemy_session_persistence = "flush"

    @classmethod
    def _after_postgeneration(cls, instance: Any, create: bool, results: Any = None) -> None:
        if create:
            cls._meta.sqlalchemy_session.flush()


class PostFactory(BaseFactory):
    class Meta:
        model = Post

    class Params:
        tagged = factory.Trait(tag=factory.RelatedFactory(f"{__name__}.LateFactory"))

    title = factory.Faker("sentence")
    author = factory.SubFactory(f"{__name__}.AuthorFactory")

    @factory.post_generation
    def tags(self, create: bool, extracted: Any, **kwargs: Any) -> None:
        if create and extracted:
            self.tags.extend(TagFactory(name=name) for name in extracted)

    @classmethod
    def create_reply(cls, post: Post) -> Post:
        return cls.create(parent=post, author=post.author)


class ReplyFactory(PostFactory):
    parent = factory.SubFactory(PostFactory)


class LateFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Tag
        sqlalchemy_session = ApplicationSession

    name = "late"


class WritingAuthorFactory(AuthorFactory):
    first_post = factory.RelatedFactory(PostFactory, factory_related_name="author")


ALL = [
    AuthorFactory,
    LinkFactory,
    TagFactory,
    BaseFactory,
    PostFactory,
    ReplyFactory,
    LateFactory,
    WritingAuthorFactory,
]


def snapshot() -> list[Any]:
    """Everything that a binding may touch."""
    return [
        (each, type(each._meta), {**vars(each._meta), "_counter": None}, "_options_class" in vars(each)) for each in ALL
    ]


class FactoryCase(unittest.TestCase):
    def setUp(self) -> None:
        engine = create_engine("sqlite://", poolclass=StaticPool)
        self.addCleanup(engine.dispose)
        self.addCleanup(ApplicationSession.remove)
        Base.metadata.create_all(engine)
        self.session = self.enterContext(Session(engine))

    def count(self, model: type) -> int:
        found: int = self.session.scalar(select(func.count()).select_from(model))
        return found


class BoundTest(FactoryCase):
    def test_each_style_uses_the_session_and_its_own_persistence(self) -> None:
        for each, persistent in ((AuthorFactory, False), (TagFactory, False), (PostFactory, True)):
            with self.subTest(each.__name__), bound([each], lambda: self.session):
                made = each.create()
                self.assertIn(made, self.session)
                self.assertEqual(made.id is not None, persistent)
        with bound([LinkFactory], lambda: self.session):
            author = AuthorFactory.build()
            self.session.add(author)
            self.session.flush()
            LinkFactory.create(author_id=author.id)
        self.session.rollback()
        self.assertEqual(self.count(Link), 1, "its persistence is commit")

    def test_afterwards_they_are_exactly_as_before(self) -> None:
        before = snapshot()
        with bound(ALL, lambda: self.session):
            PostFactory.create(tags=["a", "b"])
            LateFactory.create()
            self.assertNotEqual(snapshot(), before)
        self.assertEqual(snapshot(), before)
        with self.assertRaisesRegex(RuntimeError, "No session provided"):
            AuthorFactory.create()
        self.assertIs(PostFactory._meta.sqlalchemy_session, ApplicationSession)

    def test_they_are_as_before_after_an_error_too(self) -> None:
        before = snapshot()
        with self.assertRaises(ZeroDivisionError), bound(ALL, lambda: self.session):
            raise ZeroDivisionError
        self.assertEqual(snapshot(), before)

    def test_what_a_listed_factory_reaches_is_bound_with_it(self) -> None:
        with bound([ReplyFactory], lambda: self.session):
            reply = ReplyFactory.create(tagged=True)
            self.assertIn(reply.parent.author, self.session)
            self.session.flush()
            self.assertEqual(self.count(Tag), 1)
            self.assertIs(BaseFactory._meta.sqlalchemy_session, self.session)
        with bound([BaseFactory], lambda: self.session):
            self.assertIn(PostFactory.create(), self.session)

    def test_get_or_create_finds_what_the_session_has(self) -> None:
        with bound([TagFactory], lambda: self.session):
            self.assertIs(TagFactory.create(), TagFactory.create())
            self.session.flush()
            self.assertEqual(self.count(Tag), 1)

    def test_post_generation_and_related_factories(self) -> None:
        with bound([WritingAuthorFactory, PostFactory, TagFactory], lambda: self.session):
            post = PostFactory.create(tags=["a", "b"])
            self.assertEqual([tag.name for tag in post.tags], ["a", "b"])
            self.assertIn(post.tags[0], self.session)
            self.assertEqual(len(WritingAuthorFactory.create().posts), 1)

    def test_factories_that_hooks_call_are_reached(self) -> None:
        local = AuthorFactory

        class HookedFactory(SQLAlchemyModelFactory):
            class Meta:
                model = Post

            title = factory.LazyFunction(lambda: local.create().name)

            @factory.post_generation
            def tags(self, create: bool, extracted: Any, **kwargs: Any) -> None:
                self.tags.extend(TagFactory(name=name) for name in "ab")

            @classmethod
            def _after_postgeneration(cls, instance: Any, create: bool, results: Any = None) -> None:
                instance.replies.append(ReplyFactory(parent=None))

        with bound([HookedFactory], lambda: self.session):
            made = HookedFactory()
            self.assertTrue(all(each in self.session for each in [made, *made.tags, *made.replies]))
            self.session.flush()
            self.assertEqual(self.count(Author), 2)

    def test_lists_and_dicts_of_factories(self) -> None:
        class ListedFactory(SQLAlchemyModelFactory):
            class Meta:
                model = Author

            name = "Ada"
            posts = factory.List([factory.SubFactory(PostFactory, author=None)])

        with bound([ListedFactory], lambda: self.session):
            self.assertIs(PostFactory._meta.sqlalchemy_session, self.session)
            self.assertIn(ListedFactory.create().posts[0], self.session)

    def test_the_provider_is_asked_each_time(self) -> None:
        """So that a class binds once, for the sessions of all its tests."""
        with Session(self.session.get_bind()) as other:
            sessions = iter([self.session, other])
            current = next(sessions)
            with bound([AuthorFactory, LinkFactory], lambda: current):
                first = AuthorFactory.create()
                current = next(sessions)
                second = AuthorFactory.create()
                self.assertIs(LinkFactory._meta.sqlalchemy_session_factory(), other)
            self.assertIn(first, self.session)
            self.assertIn(second, other)

    def test_where_no_test_runs_they_do_what_they_did(self) -> None:
        with bound([AuthorFactory, LinkFactory, PostFactory], lambda: None):
            with self.assertRaisesRegex(RuntimeError, "No session provided"):
                AuthorFactory.create()
            self.assertIs(PostFactory._meta.sqlalchemy_session, ApplicationSession)
            self.assertIs(LinkFactory._meta.sqlalchemy_session_factory, ApplicationSession)
            with self.assertRaisesRegex(Exception, "no such table"):
                LinkFactory.create(author_id=1)
        self.assertIsNone(LinkFactory._meta.sqlalchemy_session)

    def test_a_session_that_a_test_sets_itself_counts_until_the_end(self) -> None:
        with Session(self.session.get_bind()) as own, bound([AuthorFactory], lambda: self.session):
            AuthorFactory._meta.sqlalchemy_session = own
            self.assertIn(AuthorFactory.create(), own)
            AuthorFactory._meta.sqlalchemy_session = self.session
            self.assertIn(AuthorFactory.create(), self.session)
        self.assertIsNone(AuthorFactory._meta.sqlalchemy_session)

    def test_a_factory_defined_meanwhile_is_bound_with_its_base(self) -> None:
        def define() -> type:
            class ShortFactory(PostFactory):
                title = "Short"

            return ShortFactory

        with bound([PostFactory], lambda: self.session):
            made = define()
            self.assertIn(made.create(), self.session)
        self.assertIs(made._meta.sqlalchemy_session, ApplicationSession)
        self.assertEqual(type(made._meta), type(PostFactory._meta))
        self.assertEqual({**vars(made._meta)}.keys(), {**vars(define()._meta)}.keys())

    def test_factories_made_by_functions_that_take_the_session(self) -> None:
        def author_factory(session: Any) -> type:
            class MadeFactory(SQLAlchemyModelFactory):
                class Meta:
                    model = Author
                    sqlalchemy_session = session

                name = "Ada"

            return MadeFactory

        self.assertIn(author_factory(self.session).create(), self.session)
        with bound([author_factory(ApplicationSession)], lambda: self.session):
            pass
        made = author_factory(ApplicationSession)
        with bound([made], lambda: self.session):
            self.assertIn(made.create(), self.session)

    def test_bindings_nest(self) -> None:
        before = snapshot()
        with Session(self.session.get_bind()) as inner, bound([AuthorFactory], lambda: self.session):
            outer = snapshot()
            with bound([AuthorFactory], lambda: inner):
                self.assertIn(AuthorFactory.create(), inner)
            self.assertIn(AuthorFactory.create(), self.session)
            self.assertEqual(snapshot(), outer)
        self.assertEqual(snapshot(), before)

    def test_a_module_stands_for_the_factories_in_it(self) -> None:
        with bound(sys.modules[__name__], lambda: self.session):
            self.assertIn(AuthorFactory.create(), self.session)
            self.assertIn(LateFactory.create(), self.session)

    def test_options_classes_of_ones_own_keep_their_options(self) -> None:
        class Options(SQLAlchemyModelFactory._options_class):  # type: ignore[name-defined,misc]
            def _build_default_options(self) -> list[Any]:
                return [*super()._build_default_options(), factory.base.OptionDefault("flavour", "plain", inherit=True)]

        class FlavouredFactory(SQLAlchemyModelFactory):
            _options_class = Options

            class Meta:
                abstract = True

        class SweetFactory(FlavouredFactory):
            class Meta:
                model = Author
                flavour = "sweet"

            name = "Ada"

        with bound([SweetFactory], lambda: self.session):
            self.assertIn(SweetFactory.create(), self.session)
            self.assertEqual(SweetFactory._meta.flavour, "sweet")
        self.assertIs(FlavouredFactory._options_class, Options)

    def test_what_is_not_a_factory_is_refused_by_name(self) -> None:
        bases = types.ModuleType("bases")
        vars(bases)["SQLAlchemyModelFactory"] = SQLAlchemyModelFactory
        for given in ([Author], Author, 3, [types], types, [bases]):
            name = getattr(given, "__name__", "")
            pattern = rf"(?s){name}.* is not a factory.*What to do: list subclasses"
            with self.subTest(given), self.assertRaisesRegex(ConfigurationError, pattern):
                with bound(given, lambda: self.session):  # type: ignore[arg-type]
                    self.fail("not reached")

    def test_a_module_has_factories_that_were_made_by_a_call(self) -> None:
        made = factory.make_factory(Author, FACTORY_CLASS=SQLAlchemyModelFactory, name="Ada")
        module = types.ModuleType("made")
        vars(module)["Made"] = made
        with bound(module, lambda: self.session):
            self.assertIn(made.create(), self.session)

    def test_one_factory_needs_no_list(self) -> None:
        with bound(AuthorFactory, lambda: self.session):  # type: ignore[arg-type]
            self.assertIn(AuthorFactory.create(), self.session)

    def test_factory_boy_still_reads_options_the_way_that_binding_relies_on(self) -> None:
        """A contract: `_meta` is asked again at each creation, and the options' class decides."""
        asked = []
        with bound([AuthorFactory], lambda: asked.append(1) or self.session):  # type: ignore[func-returns-value]
            AuthorFactory.create_batch(3)
        self.assertGreaterEqual(len(asked), 3)


class AsyncTest(unittest.IsolatedAsyncioTestCase):
    async def test_sync_factories_work_on_the_async_sessions_own_session(self) -> None:
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        try:
            async with AsyncSession(engine) as session:
                with bound([AuthorFactory, PostFactory], lambda: session.sync_session):
                    author = AuthorFactory.create()
                    await session.flush()
                    post = await session.run_sync(lambda _: PostFactory.create(author=author))
                self.assertEqual((post.author_id, author in session), (author.id, True))
        finally:
            await engine.dispose()


class FactoryManagerTest(FactoryCase):
    def test_factories_are_attributes(self) -> None:
        manager = FactoryManager(self.session, [AuthorFactory, PostFactory])
        before = snapshot()
        author = manager.AuthorFactory.create(name="Ada")
        self.assertIsNotNone(author.id)
        self.assertIn(author, self.session)
        self.assertEqual(len(manager.PostFactory.create_batch(2, author=author)), 2)
        self.assertIsNotNone(manager.AuthorFactory().id)
        self.assertIs(manager.PostFactory.create_reply(author.posts[0]).author, author)
        self.assertEqual(self.count(Post), 3)
        self.assertEqual(snapshot(), before)

    def test_what_is_only_built_is_not_stored(self) -> None:
        manager = FactoryManager(self.session, [AuthorFactory])
        manager.AuthorFactory.build()
        manager.AuthorFactory.stub()
        self.assertEqual(self.count(Author), 0)

    def test_the_classes_keep_to_their_own_persistence(self) -> None:
        manager = FactoryManager(self.session, [AuthorFactory])
        with bound([AuthorFactory], lambda: self.session):
            self.assertIsNone(AuthorFactory.create().id)
            self.assertIsNotNone(manager.AuthorFactory.create().id)

    def test_a_name_that_is_not_there_is_told_with_those_that_are(self) -> None:
        manager = FactoryManager(self.session, sys.modules[__name__])
        with self.assertRaisesRegex(AttributeError, "'UserFactory'.* AuthorFactory, LateFactory, .*TagFactory"):
            _ = manager.UserFactory
        self.assertIn("PostFactory", dir(manager))
        self.assertNotIn("BaseFactory", dir(manager))

    def test_other_attributes_of_the_factory_are_its_own(self) -> None:
        manager = FactoryManager(self.session, [AuthorFactory])
        self.assertIs(manager.AuthorFactory._meta, AuthorFactory._meta)
        manager.AuthorFactory.reset_sequence(7)
        self.assertEqual(manager.AuthorFactory.build().name, "Author 7")

    def test_a_function_may_give_the_session(self) -> None:
        manager = FactoryManager(lambda: self.session, [AuthorFactory])
        self.assertIn(manager.AuthorFactory.create(), self.session)


class PolyfactoryTest(FactoryCase):
    def setUp(self) -> None:
        super().setUp()
        require_module("polyfactory")
        from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory

        class PolyBase(SQLAlchemyFactory[Author]):
            __is_base_factory__ = True
            __session__ = ApplicationSession
            __set_relationships__ = False
            __set_primary_key__ = False
            __set_association_proxy__ = False

        class PolyAuthor(PolyBase):
            __model__ = Author
            version = 1
            kind = "author"
            settings: dict[str, Any] = {}
            aliases: list[str] = []
            notes: list[str] = []

        self.base, self.poly = PolyBase, PolyAuthor

    def test_it_uses_the_session_and_is_restored(self) -> None:
        before = dict(vars(self.poly))
        with bound([self.poly], lambda: self.session):
            self.assertIn(self.poly.create_sync(), self.session)
            self.assertEqual(len(self.poly.create_batch_sync(2)), 2)
        self.assertEqual(dict(vars(self.poly)), before)
        self.assertIs(self.poly.__session__, ApplicationSession)
        self.assertEqual(self.count(Author), 3)

    def test_a_listed_base_binds_its_subclasses(self) -> None:
        self.poly.__session__ = ApplicationSession
        with bound([self.base], lambda: self.session):
            self.assertIn(self.poly.create_sync(), self.session)
        self.assertIs(vars(self.poly)["__session__"], ApplicationSession)

    def test_a_manager_has_it_too(self) -> None:
        manager = FactoryManager(self.session, [self.poly, AuthorFactory])
        self.assertIsNotNone(manager.PolyAuthor.create_sync().id)
        self.assertNotIn("PolyBase", dir(FactoryManager(self.session, [self.base])))

    def test_create_async_uses_the_async_session(self) -> None:
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        async def run() -> None:
            engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            async with AsyncSession(engine, expire_on_commit=False) as session:
                with bound([self.poly], lambda: session.sync_session, async_session_provider=lambda: session):
                    self.assertIn(await self.poly.create_async(), session)
            await engine.dispose()

        asyncio.run(run())
        self.assertIsNone(self.poly.__async_session__)

    def test_a_persistence_handler_of_its_own_is_left_alone(self) -> None:
        saved = []
        handler = types.SimpleNamespace(save=lambda data: saved.append(data) or data, save_many=list)
        self.base.__session__ = None
        self.poly.__sync_persistence__ = handler
        with bound([self.poly], lambda: self.session):
            self.poly.create_sync()
        self.assertEqual(len(saved), 1)


if __name__ == "__main__":
    unittest.main()
