CREATE TABLE book (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    title text NOT NULL UNIQUE,
    lent_to text
);

CREATE VIEW shelf AS SELECT id, title FROM book WHERE lent_to IS NULL;

CREATE FUNCTION one_book_a_reader() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM book WHERE lent_to = new.lent_to AND id <> new.id) THEN
        RAISE EXCEPTION '% has a book already', new.lent_to;
    END IF;
    RETURN new;
END $$;

CREATE TRIGGER one_book_a_reader BEFORE UPDATE ON book FOR EACH ROW EXECUTE FUNCTION one_book_a_reader();
