"""Every test starts with Ada, her first post and nothing else, whatever the application committed before."""

from blog import db, services
from blog.models import Author, Base, Comment, Post, Tag
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from dbtestcase import DatabaseTest


class BlogTest(DatabaseTest):
    metadata = Base.metadata
    engines = [db.engine]
    ada: Author
    post: Post

    @classmethod
    def load_base_data(cls, session: Session) -> None:
        session.add_all([Tag(name="news"), Tag(name="python")])

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = Author(name="Ada")
        cls.post = Post(author=cls.ada, title="Notes", slug="notes")
        cls.session.add_all([cls.ada, cls.post])


class PublishTest(BlogTest):
    def test_a_post_is_there_after_the_services_own_commit(self) -> None:
        slug = services.publish(self.ada.id, "Hello, World!", tags=["python"])
        self.assertEqual(slug, "hello-world")
        self.assertRowCount(Post, 2)
        self.assertRowCount(Post, 1, Post.slug == "hello-world")

    def test_a_title_used_before_gets_a_number(self) -> None:
        """The first attempt breaks a constraint and is rolled back by the service; the second one stays."""
        self.assertEqual(services.publish(self.ada.id, "Notes"), "notes-2")
        self.assertEqual(services.publish(self.ada.id, "Notes"), "notes-3")
        self.assertRowCount(Post, 3)

    def test_an_empty_title_is_refused_by_the_database(self) -> None:
        with self.assertRaises(IntegrityError):
            services.publish(self.ada.id, "")
        self.assertRowCount(Post, 1)

    def test_known_tags_are_used_again(self) -> None:
        services.publish(self.ada.id, "One", tags=["python", "new"])
        services.publish(self.ada.id, "Two", tags=["python", "new"])
        self.assertRowCount(Tag, 3)

    def test_the_objects_of_the_class_are_fresh_in_each_test(self) -> None:
        self.post.title = "Changed"
        self.session.commit()
        self.assertEqual([post.title for post in self.ada.posts], ["Changed"])

    def test_no_test_sees_the_changes_of_another(self) -> None:
        self.assertEqual(self.post.title, "Notes")
        self.assertRowCount(Post, 1)
        self.assertRowCount(Tag, 2)


class CommentTest(BlogTest):
    def test_a_comment_is_added(self) -> None:
        services.comment("notes", "Well said")
        self.assertEqual([comment.body for comment in self.post.comments], ["Well said"])

    def test_an_unknown_post_is_an_error(self) -> None:
        with self.assertRaises(services.UnknownPost):
            services.comment("no-such-post", "Well said")
        self.assertRowCount(Comment, 0)

    def test_the_most_discussed_come_first(self) -> None:
        services.publish(self.ada.id, "Silence")
        services.publish(self.ada.id, "Debate")
        for body in ("Yes", "No"):
            services.comment("debate", body)
        services.comment("notes", "Hm")
        self.assertEqual(services.most_discussed(), [("Debate", 2), ("Notes", 1), ("Silence", 0)])

    def test_comments_are_imported_by_copy(self) -> None:
        self.assertEqual(services.import_comments("notes", (f"No. {n}" for n in range(500))), 500)
        self.assertRowCount(Comment, 500, Comment.post_id == self.post.id)


class WithdrawTest(BlogTest):
    def test_a_post_goes_with_its_comments(self) -> None:
        services.comment("notes", "Well said")
        self.assertTrue(services.withdraw("notes"))
        self.assertRowCount(Post, 0)
        self.assertRowCount(Comment, 0)

    def test_what_is_not_there_cannot_be_withdrawn(self) -> None:
        self.assertFalse(services.withdraw("no-such-post"))


class HandOverTest(BlogTest):
    def test_posts_go_to_the_new_author_and_the_old_one_goes(self) -> None:
        grace_id = services.register("Grace")
        self.assertEqual(services.hand_over(self.ada.id, grace_id), 1)
        self.assertRowCount(Author, 1)
        self.assertRowCount(Post, 1, Post.author_id == grace_id)

    def test_nothing_changes_where_the_new_author_is_unknown(self) -> None:
        with self.assertRaises(IntegrityError):
            services.hand_over(self.ada.id, 1_000_000)
        self.assertRowCount(Author, 1)
        self.assertRowCount(Post, 1, Post.author_id == self.ada.id)
