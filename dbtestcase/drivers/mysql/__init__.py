"""MySQL and MariaDB: PyMySQL and mysqlclient."""
