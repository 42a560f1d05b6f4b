INSERT INTO book (title) VALUES ('Emma'), ('Walden'), ('Ulysses');
