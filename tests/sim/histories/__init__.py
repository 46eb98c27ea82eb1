"""Histories of what clients asked and were told, and checkers: could a correct system have made one?"""
